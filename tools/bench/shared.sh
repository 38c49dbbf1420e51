#!/bin/bash
# shared.sh [SECONDS]: several mounts write one file at the same time, with and without the leases of a contended file being passed
# from one to the next (-o nothrough): records side by side, and appended lines. The two take turns. Brought up in a mount
# namespace of its own, gone at the end. For root.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "shared.sh: needs root (mounts)" >&2; exit 1; }
[ "${BENCH_NS-}" ] || BENCH_NS=1 exec unshare -m --propagation private "$0" "$@"

bin=${T_BIN:-build/release/bin} port=9577 server='' seconds=${1:-5}
dir=$(mktemp -d "$PWD/build/bench.XXXXXX")
down() {
	set +e
	for m in pass through; do for i in 1 2 3 4; do umount "$dir/$m$i" 2>/dev/null; done; done
	sleep 0.5
	if [ "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi
	rm -rf --one-file-system "$dir"
}
trap down EXIT
trap 'exit 130' INT TERM

mkdir "$dir/state"
"$bin/claudefs" format --size 16G "$dir/store.img" >"$dir/format.log"
"$bin/claudefsd" --listen "127.0.0.1:$port" --target "$dir/store.img" --state-dir "$dir/state" --log-file "$dir/server.log" & server=$!
for _ in $(seq 100); do "$bin/claudefs" status "127.0.0.1:$port" >/dev/null 2>&1 && break; sleep 0.1; done
for i in 1 2 3 4; do
	mkdir "$dir/pass$i" "$dir/through$i"
	"$bin/claudefs" mount "127.0.0.1:$port" "$dir/pass$i" -o "cachedir=$dir/cache-p$i,nothrough"
	"$bin/claudefs" mount "127.0.0.1:$port" "$dir/through$i" -o "cachedir=$dir/cache-t$i"
done

echo "machine: $(nproc) CPUs, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
printf '%-28s %10s %10s %10s %10s %8s\n' "one file, written by" "pass op/s" "MiB/s" "thru op/s" "MiB/s" "ratio"
row() { # TITLE MOUNTS ARG...
	local title=$1 n=$2 pass=() through=() p t i
	shift 2
	for ((i = 1; i <= n; i++)); do pass+=("$dir/pass$i") through+=("$dir/through$i"); done
	p=$("$bin/sharedbench" -s "$seconds" "$@" "${pass[@]}")
	t=$("$bin/sharedbench" -s "$seconds" "$@" "${through[@]}")
	printf '%-28s %10s %10s %10s %10s %8s\n' "$n mounts, $title" ${p} ${t} "$(awk -v p="${p% *}" -v t="${t% *}" 'BEGIN { printf "%.1f", p ? t / p : 0 }')"
}
for n in 2 4; do
	row "records of 4 KiB" "$n" -b 4096
	row "records of 64 KiB" "$n" -b 65536
	row "records of 1 MiB" "$n" -b 1048576
	row "records of 47,008 bytes" "$n" -b 47008
	row "lines of 100 bytes" "$n" -b 100 -a
	row "lines of 4,000 bytes" "$n" -b 4000 -a
done
