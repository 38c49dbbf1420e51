#!/bin/bash
# passthrough.sh [SCRATCH-OPTIONS]: scratch files on ext4, on a mount that passes them through (its cache is on that ext4), and
# on one that does not; then their ratios to ext4. Brought up in a mount namespace of its own, gone at the end. For root.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ "$(id -u)" = 0 ] || { echo "passthrough.sh: needs root (mounts)" >&2; exit 1; }
[ "${BENCH_NS-}" ] || BENCH_NS=1 exec unshare -m --propagation private "$0" "$@"

bin=${T_BIN:-build/release/bin} port=9573 server=''
dir=$(mktemp -d "$PWD/build/bench.XXXXXX")
down() {
	set +e
	umount "$dir/pass" "$dir/plain" 2>/dev/null
	sleep 0.5
	if [ "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi
	umount "$dir/ext4"
	rm -rf --one-file-system "$dir"
}
trap down EXIT
trap 'exit 130' INT TERM

mkdir "$dir"/{ext4,pass,plain,state}
truncate -s 8G "$dir/ext4.img"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$dir/ext4.img"
mount -o loop "$dir/ext4.img" "$dir/ext4"
mkdir "$dir/ext4/files"
"$bin/claudefs" format --size 8G "$dir/store.img" >"$dir/format.log"
"$bin/claudefsd" --listen "127.0.0.1:$port" --target "$dir/store.img" --state-dir "$dir/state" --log-file "$dir/server.log" & server=$!
for _ in $(seq 100); do "$bin/claudefs" status "127.0.0.1:$port" >/dev/null 2>&1 && break; sleep 0.1; done
"$bin/claudefs" mount "127.0.0.1:$port" "$dir/pass" -o "cachedir=$dir/ext4/cache1,passthrough=on"
"$bin/claudefs" mount "127.0.0.1:$port" "$dir/plain" -o "cachedir=$dir/ext4/cache2,passthrough=off"

echo "machine: $(nproc) CPUs, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
printf '%-24s %12s %12s %12s %8s %8s\n' "scratch files" ext4 passthrough plain pt/ext4 plain/e
"$bin/scratch" "$@" "$dir/ext4/files" "$dir/pass" "$dir/plain"
