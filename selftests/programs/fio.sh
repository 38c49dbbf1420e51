#!/bin/bash
# fio writes blocks with checksums in random order and verifies them: buffered, direct, mapped, mixed sizes, with fsyncs,
# by several processes; then once more through another mount.
# timeout: 200
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
command -v fio >/dev/null || skip_all "no fio"

cluster_start
cluster_mount a
cluster_mount b
job() { # NAME OPTION...
	local name=$1
	shift
	try "$name" timeout 60 fio --name="$name" --directory="$T_DIR/a" --size=32m --verify=crc32c --verify_fatal=1 --verify_dump=0 \
		--output="$T_DIR/fio.$name" --randseed=7 --group_reporting "$@"
}
job buffered --rw=randwrite --bs=4k
job direct --rw=randwrite --bs=4k --direct=1
job mapped --rw=randwrite --bs=4k --ioengine=mmap
job sizes --rw=randwrite --bsrange=512-65536 --bs_unaligned --fsync=200
job sequential --rw=write --bs=1m --size=128m --end_fsync=1
job readwrite --rw=randrw --bs=8k --fdatasync=100 --verify_backlog=64
job processes --rw=randwrite --bs=16k --numjobs=4 --size=16m
for name in buffered direct mapped sequential; do
	case $name in sequential) o=(--rw=write --bs=1m --size=128m) ;; *) o=(--rw=randwrite --bs=4k --size=32m) ;; esac
	try "$name, verified through the other mount" timeout 60 fio --name="$name" --directory="$T_DIR/b" --verify=crc32c --verify_fatal=1 \
		--verify_dump=0 --verify_only --randseed=7 --output="$T_DIR/fio.b.$name" "${o[@]}"
done
cluster_end
done_testing
