#!/bin/bash
# kernel.sh (`make bench-kernel`): what the tiers give, as ratios of two ways measured in turns in one run.
#
#   kernel.sh [-r ROUNDS] [-s SECONDS] [-n] [ROWS...]    -n: at the highest priority, for a machine that others use as well
#
# Rows are files in kernel.d/, sourced in order of name; ROWS picks some by name. What a row file may use:
#   kb_mount NAME OPTIONS      mounts at $kb_dir/NAME (umounted at the end); 1 if it fails, $kb_why tells why
#   kb_compare "WHAT" AIM A B  A and B are commands that print one figure, the higher the better, run in turns; prints the medians and
#                              A's best by B's best, with the aim ("-": none)
#   kb_skip "WHAT" "REASON"    a row that cannot be measured here
# Read ratios, not figures: a machine in use slows all of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=7 seconds=0.3 first=
while getopts r:s:n o; do
	case $o in
	r) rounds=$OPTARG ;; s) seconds=$OPTARG ;; n) first="nice -n -20" ;;
	*) sed -n '4p' "$0" >&2; exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ "$(id -u)" = 0 ] || { echo "bench-kernel: needs root (mounts)" >&2; exit 1; }
if [ -z "${BENCH_NS-}" ]; then BENCH_NS=1 exec unshare -m --propagation private "$0" -r "$rounds" -s "$seconds" ${first:+-n} "$@"; fi

bin=$PWD/${T_BIN:-build/release/bin} port=9573 server='' kb_why='' mounts=()
kb_dir=$(mktemp -d "$PWD/build/bench.XXXXXX")
down() {
	set +e
	for m in "${mounts[@]}"; do umount "$m"; done 2>/dev/null
	if [ "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi
	sleep 0.5
	rm -rf --one-file-system "$kb_dir"
}
trap down EXIT
trap 'exit 130' INT TERM

kb_mount() {
	mkdir -p "$kb_dir/$1"
	kb_why=$($first "$bin/claudefs" mount "127.0.0.1:$port" "$kb_dir/$1" -o "cachedir=$kb_dir/cache-$1,cachesize=2G,$2" 2>&1) || return 1
	mounts+=("$kb_dir/$1")
}
kb_skip() { printf '%-44s %s\n' "$1" "not measured: $2"; }
kb_compare() {
	local what=$1 aim=$2 a=$3 b=$4 i
	for i in $(seq "$rounds"); do
		echo "a $($first bash -c "$a")"
		echo "b $($first bash -c "$b")"
	done | sort -k1,1 -k2,2n | awk -v w="$what" -v aim="$aim" '{v[$1, ++n[$1]] = $2}
		END { a = v["a", n["a"]]; b = v["b", n["b"]]
			printf "%-44s %12.0f %12.0f %8.2f %6s\n", w, v["a", int((n["a"] + 1) / 2)], v["b", int((n["b"] + 1) / 2)], b ? a / b : 0, aim }'
}

mkdir "$kb_dir/state"
"$bin/claudefs" format --size 8G "$kb_dir/store.img" >"$kb_dir/format.log"
"$bin/claudefsd" --listen "127.0.0.1:$port" --target "$kb_dir/store.img" --state-dir "$kb_dir/state" --log-file "$kb_dir/server.log" & server=$!
for _ in $(seq 100); do "$bin/claudefs" status "127.0.0.1:$port" >/dev/null 2>&1 && break; sleep 0.1; done

echo "machine: $(nproc) CPUs, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F); $rounds rounds of $seconds s each"
printf '%-44s %12s %12s %8s %6s\n' 'what (medians)' this 'beside' 'best/best' aim
for row in tools/bench/kernel.d/*.sh; do
	[ $# = 0 ] || [[ " $* " = *" $(basename "$row" .sh) "* ]] || continue
	# shellcheck source=/dev/null
	. "$row"
done
