#!/bin/bash
# bpf_guest.sh MODULE: runs in the test machine for kernel.d/bpf.sh, and prints its rows: instructions, the fewer the better.
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && cd /mnt && insmod "$1" || exit 1
mkdir state a w
"$T_BIN/claudefs" format --size 3G store.img >/dev/null &&
	"$T_BIN/claudefsd" --listen 127.0.0.1:9510 --target store.img --state-dir state --log-file server.log --daemon || exit 1
"$T_BIN/claudefs" mount 127.0.0.1:9510 w -o cachedir=/mnt/cache-w,bpf=off || exit 1
mkdir w/d && echo x >w/d/f && umount w
sleep 2
"$T_BIN/claudefs" mount 127.0.0.1:9510 a -o cachedir=/mnt/cache-a,bpf=on || exit 1
until "$T_BIN/claudefs" status /mnt/a >/dev/null 2>&1; do sleep 0.2; done
ctl=$(echo /sys/fs/bpf/claudefs/*/maps/ctl)
row() { printf '%-44s %12s %12s %8s %6s\n' "$1" "$2" "$3" "$(awk -v a="$2" -v b="$3" 'BEGIN {printf "%.2f", a / b}')" "$4"; }
cd a/d && stat f >/dev/null || exit 1
cached=$("$T_BIN/bpfstat" 2000 f)
echo 2 >/proc/sys/vm/drop_caches
# two answers: the name and its attributes; those of the directory stay in the kernel while it is the working directory
answered=$("$T_BIN/bpfstat" 500 f "$ctl")
row "bpf: instructions of a stat, kernel keeps 0 s / cached" "$answered" "$cached" -
row "bpf: instructions of a stat, kernel keeps 0 s / 11000" "$answered" 11000 "<= 1"
cd / && umount /mnt/a
