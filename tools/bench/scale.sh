#!/bin/bash
# scale.sh [-n FILES] (`make bench-scale`): what many files cost: memory of the server and of a client, time to start.
#
# Makes FILES (a million) files of which every tenth holds 8 KiB, so an object; then starts the server again after a stop, and after
# a kill -9. Memory is what the processes have for themselves (RssAnon); LMDB's pages are the kernel's cache of a
# file (RssFile), given apart.
set -euo pipefail
cd "$(dirname "$0")/../.."
files=1000000
while getopts n: o; do
	case $o in
	n) files=$OPTARG ;;
	*) sed -n '2p' "$0" >&2; exit 2 ;;
	esac
done
[ "$(id -u)" = 0 ] || { echo "bench: needs root (mounts)" >&2; exit 1; }
if [ -z "${BENCH_NS-}" ]; then BENCH_NS=1 exec unshare -m -n --propagation private "$0" -n "$files"; fi

bin=${T_BIN:-build/release/bin}
dir=$(mktemp -d "$PWD/build/scale.XXXXXX")
addr=127.0.0.1:9572 server='' client=''
down() {
	set +e
	umount "$dir/mnt" 2>/dev/null
	[ -z "$client" ] || wait "$client" 2>/dev/null
	if [ "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi
	rm -rf --one-file-system "$dir"
}
trap down EXIT
trap 'exit 130' INT TERM

start() { # sets $server, and $took: the seconds until it serves
	local t0=$EPOCHREALTIME t1
	"$bin/claudefsd" --listen "$addr" --target "$dir/store.img" --state-dir "$dir/state" --log-file "$dir/server.log" &
	server=$!
	until "$bin/claudefs" status "$addr" >/dev/null 2>&1; do
		kill -0 "$server" 2>/dev/null || { echo "the server ended: $(tail -n 1 "$dir/server.log")" >&2; exit 1; }
		sleep 0.02
	done
	t1=$EPOCHREALTIME
	took=$(awk -v a="$t0" -v b="$t1" 'BEGIN {printf "%.2f", b - a}')
	took+=" ($(awk '{printf "%.2f", ($14 + $15) / 100}' "/proc/$server/stat") of CPU)"
}
mem() { awk -v k="$2:" '$1 == k {print $2}' "/proc/$1/status"; }
figure() { "$bin/claudefs" status --json "$addr" | grep -o "\"$1\": *[0-9][0-9]*" | head -n 1 | grep -o '[0-9]*$'; }

ip link set lo up
mkdir "$dir"/{mnt,cache,state}
"$bin/claudefs" format --size 64G "$dir/store.img" >"$dir/format.log"
start
"$bin/claudefs" mount -f -o "cachedir=$dir/cache,cachesize=2G" "$addr" "$dir/mnt" >"$dir/client.log" 2>&1 & client=$!
until mountpoint -q "$dir/mnt"; do kill -0 "$client" || exit 1; sleep 0.05; done
echo "machine: $(nproc) CPUs, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
empty=$(mem "$server" RssAnon)
per=$((files / 16))
"$bin/mdbench" -d "$dir/mnt/e" -t 16 -n $((per * 9 / 10)) -p mkdir,create >"$dir/md.log"
"$bin/mdbench" -d "$dir/mnt/w" -t 16 -n $((per / 10)) -s 8192 -p mkdir,write >>"$dir/md.log"
sync -f "$dir/mnt"
inodes=$(figure inodes) objects=$(figure objects)
anon=$(mem "$server" RssAnon) file=$(mem "$server" RssFile) c_anon=$(mem "$client" RssAnon)
index=$(figure index_bytes) db=$(figure db_bytes)
printf '%-44s %12s\n' files "$inodes" objects "$objects" \
	"server: own memory, MiB" "$((anon / 1024))" \
	"server: grown per file, bytes" "$(((anon - empty) * 1024 / inodes))" \
	"server: object index per object, bytes" "$((index / (objects ? objects : 1)))" \
	"server: LMDB state, MiB" "$((db >> 20))" "server: of it in memory, MiB" "$((file / 1024))" \
	"client: own memory, MiB" "$((c_anon / 1024))"
umount "$dir/mnt"
wait "$client" || true
client=''
kill "$server"; wait "$server" || true
start
printf '%-44s %12s\n' "start after a stop, seconds" "$took"
kill -9 "$server"; wait "$server" 2>/dev/null || true
start
printf '%-44s %12s\n' "start after kill -9, seconds" "$took"
kill "$server"; wait "$server" || true
rm -rf "$dir/state/shard0"
start
printf '%-44s %12s\n' "start with the state gone (as after a reboot)" "$took"
