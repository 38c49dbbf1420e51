#!/bin/bash
# run.sh (`make bench`): one run, one table: an ext4 directory, a null FUSE file system, ClaudeFS, and the floors.
#
#   run.sh [-n FILES] [-t "THREADS..."] [-s SECONDS] [-l LARGE_MIB]
#
# Everything stands on one disk: the store (a sparse file), and a fresh ext4 in a loop file. It is brought up in a
# mount namespace of its own and is gone at the end. Read ratios within one table, never numbers of two.
set -euo pipefail
cd "$(dirname "$0")/../.."
files=2000 threads="1 16" seconds=3 large=256
while getopts n:t:s:l: o; do
	case $o in
	n) files=$OPTARG ;; t) threads=$OPTARG ;; s) seconds=$OPTARG ;; l) large=$OPTARG ;;
	*) sed -n '2,4p' "$0" >&2; exit 2 ;;
	esac
done
[ "$(id -u)" = 0 ] || { echo "bench: needs root (mounts)" >&2; exit 1; }
if [ -z "${BENCH_NS-}" ]; then BENCH_NS=1 exec unshare -m --propagation private "$0" -n "$files" -t "$threads" -s "$seconds" -l "$large"; fi

bin=${T_BIN:-build/release/bin}
dir=$(mktemp -d "$PWD/build/bench.XXXXXX")
port=9571 server='' null=''
down() {
	set +e
	umount "$dir/cfs" "$dir/null" "$dir/ext4" 2>/dev/null
	[ -z "$null" ] || wait "$null" 2>/dev/null
	if [ "$server" ]; then kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; fi
	sleep 0.5
	rm -rf --one-file-system "$dir"
}
trap down EXIT
trap 'exit 130' INT TERM

mkdir "$dir"/{cfs,null,ext4,cache,state}
truncate -s 20G "$dir/ext4.img"
mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$dir/ext4.img"
mount -o loop "$dir/ext4.img" "$dir/ext4"
"$bin/null_fuse" "$dir/null" & null=$!
"$bin/claudefs" format --size 16G "$dir/store.img" >"$dir/format.log"
"$bin/claudefsd" --listen "127.0.0.1:$port" --target "$dir/store.img" --state-dir "$dir/state" --log-file "$dir/server.log" & server=$!
for _ in $(seq 100); do "$bin/claudefs" status "127.0.0.1:$port" >/dev/null 2>&1 && break; sleep 0.1; done
mounts=0
remount() { # a cache of its own for each: the client of the last mount may still be ending
	umount "$dir/cfs" 2>/dev/null || true
	mounts=$((mounts + 1))
	"$bin/claudefs" mount "127.0.0.1:$port" "$dir/cfs" -o "cachedir=$dir/cache/$mounts,cachesize=4G"
}
remount

echo "machine: $(nproc) CPUs, kernel $(uname -r), load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
"$bin/floor" "$dir" "$seconds" | tee "$dir/floor"
net_us=$(awk '$1 == "loopback" {print 1e6 / $2}' "$dir/floor")
disk_us=$(awk '$1 == "journal" {print 1e6 / $3}' "$dir/floor")

meta=mkdir,create,stat,statneg,open,readdir,readdirplus,chmod,rename,renamex,unlink,rmdir
row() { awk -v p="$2" '$1 == p {print $4}' "$1"; }
for t in $threads; do
	n=$((files / t)); [ "$n" -ge 100 ] || n=100
	for fs in ext4 null cfs; do "$bin/mdbench" -d "$dir/$fs/b" -t "$t" -n "$n" -p "$meta" >"$dir/$fs.$t" || true; done
	for fs in ext4 cfs; do "$bin/mdbench" -d "$dir/$fs/w" -t "$t" -n "$n" -p mkdir,write,read,unlink,rmdir >>"$dir/$fs.w.$t" || true; done
	echo
	echo "metadata, $t thread(s), $n files each: operations/s; 'sum of floors' = null FUSE + loopback + journal write"
	printf '%-12s %10s %10s %10s %9s %9s %14s\n' phase ext4 'null FUSE' ClaudeFS '/ext4' '/null' 'x sum of floors'
	for p in ${meta//,/ }; do
		awk -v p="$p" -v e="$(row "$dir/ext4.$t" "$p")" -v n="$(row "$dir/null.$t" "$p")" -v c="$(row "$dir/cfs.$t" "$p")" \
			-v net="$net_us" -v disk="$disk_us" -v t="$t" 'BEGIN {
			if (!c || !n || !e) { printf "%-12s failed\n", p; exit }
			f = "-"
			if (t == 1 && p ~ /^(mkdir|create|chmod|rename|renamex|unlink|rmdir)$/) f = sprintf("%.2f", (1e6 / c) / (1e6 / n + net + disk))
			if (t == 1 && p == "statneg") f = sprintf("%.2f", (1e6 / c) / (1e6 / n + net))
			printf "%-12s %10.0f %10.0f %10.0f %9.2f %9.2f %14s\n", p, e, n, c, c / e, c / n, f }'
	done
	for p in write read; do
		awk -v p="$p" -v e="$(row "$dir/ext4.w.$t" "$p")" -v c="$(row "$dir/cfs.w.$t" "$p")" 'BEGIN {
			if (!c || !e) { printf "%-12s failed\n", p " 4K"; exit }
			printf "%-12s %10.0f %10s %10.0f %9.2f\n", p " 4K", e, "-", c, c / e }'
	done
done

echo
echo "cold stat after a remount (no name known to the client), 1 thread, $files files: operations/s"
"$bin/mdbench" -d "$dir/cfs/c" -n "$files" -p mkdir,create >/dev/null
remount
"$bin/mdbench" -d "$dir/cfs/c" -n "$files" -p statcold | awk '$1 == "statcold" {printf "%-12s %10.0f\n", $1, $4}'
"$bin/mdbench" -d "$dir/cfs/c" -n "$files" -p unlink,rmdir >/dev/null

echo
echo "large files, fio, ${large} MiB: MiB/s (sequential) and IOPS (4 KiB random)"
job() { # DIR NAME ARGS... -> one figure
	local d=$1 field=$2
	shift 2
	fio --name=j --directory="$d" --filename=fio.dat --size="${large}M" --output-format=terse --terse-version=3 "$@" 2>/dev/null |
		awk -F';' -v f="$field" '{print $f}'
}
drop() { remount; echo 1 >/proc/sys/vm/drop_caches; }
# terse v3: 7 read KiB/s, 8 read IOPS, 48 write KiB/s, 49 write IOPS
for fs in ext4 null cfs; do
	d=$dir/$fs
	w[0]=$(job "$d" 48 --rw=write --bs=1M --end_fsync=1)
	if [ $fs = cfs ]; then drop; else echo 1 >/proc/sys/vm/drop_caches; fi
	w[1]=$(job "$d" 7 --rw=read --bs=1M)
	w[2]=$(job "$d" 8 --rw=randread --bs=4k --runtime="$seconds" --time_based=1 --invalidate=0) # else fio drops the pages first
	w[3]=$(job "$d" 49 --rw=randwrite --bs=4k --runtime="$seconds" --time_based=1 --end_fsync=1)
	echo "$fs ${w[*]}"
	rm -f "$d/fio.dat"
done | tee "$dir/fio" >/dev/null
odw=$(fio --name=j --filename="$dir/odirect.dat" --size="${large}M" --direct=1 --rw=write --bs=1M --output-format=terse --terse-version=3 | cut -d';' -f48)
odr=$(fio --name=j --filename="$dir/odirect.dat" --size="${large}M" --direct=1 --rw=read --bs=1M --output-format=terse --terse-version=3 | cut -d';' -f7)
awk -v odw="$odw" -v odr="$odr" '
	{ for (i = 2; i <= 5; i++) v[$1, i - 1] = $i }
	function line(name, i, div, floor,   low) {
		low = v["null", i]; if (floor && floor < low) low = floor
		printf "%-22s %10.0f %10.0f %10s %10.0f %9.2f %18.2f\n", name, v["ext4", i] / div, v["null", i] / div,
			floor ? sprintf("%.0f", floor / div) : "-", v["cfs", i] / div, v["cfs", i] / v["ext4", i], v["cfs", i] / low }
	END { printf "%-22s %10s %10s %10s %10s %9s %18s\n", "job", "ext4", "null FUSE", "O_DIRECT", "ClaudeFS", "/ext4", "/slower of floors"
		line("write 1M + fsync", 1, 1024, odw); line("read 1M, cold", 2, 1024, odr)
		line("randread 4K, page cache", 3, 1, 0); line("randwrite 4K + fsync", 4, 1, 0) }' "$dir/fio"

echo
echo "programs: seconds"
git init -q "$dir/src" && (cd "$dir/src" && for i in $(seq 100); do mkdir -p d$i; for j in $(seq 100); do echo "file $i $j $RANDOM" >d$i/f$j; done; done &&
	git add -A && git -c user.name=b -c user.email=b@example.invalid commit -qm bench)
tar -C "$dir/src" --exclude=.git -cf "$dir/src.tar" .
seconds_of() { local s; s=$(date +%s.%N); "$@" >/dev/null 2>&1 || echo "failed: $*" >&2; echo "$(date +%s.%N) $s" | awk '{printf "%.2f", $1 - $2}'; }
untar() { mkdir "$1/untar" && tar -C "$1/untar" -xf "$dir/src.tar"; }
# The floor of an untar: what the null FUSE file system takes for it, and for each file two durable requests, its creation and
# its owner and mode. git needs to read back what it wrote, which the null file system cannot.
printf '%-22s %10s %10s %10s %9s %15s\n' job ext4 'null FUSE' ClaudeFS 'x ext4' 'x sum of floors'
for job in untar clone; do
	n=
	for fs in ext4 null cfs; do
		case $job.$fs in
		untar.*) t=$(seconds_of untar "$dir/$fs") ;;
		clone.null) continue ;;
		clone.*) t=$(seconds_of git clone -q --no-local "$dir/src" "$dir/$fs/clone") ;;
		esac
		case $fs in ext4) e=$t ;; null) n=$t ;; cfs) c=$t ;; esac
	done
	awk -v j="$job of 10,000 files" -v e="$e" -v n="$n" -v c="$c" -v net="$net_us" -v disk="$disk_us" 'BEGIN {
		f = n ? sprintf("%.2f", c / (n + 2 * 10000 * (net + disk) / 1e6)) : "-"
		printf "%-22s %10.2f %10s %10.2f %9.2f %15s\n", j, e, n ? n : "-", c, c / e, f }'
done
