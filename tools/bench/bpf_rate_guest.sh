#!/bin/bash
# bpf_rate_guest.sh MODULE: runs in the test machine, with its clock free and two CPUs, for kernel.d/bpf.sh: stats a second that the kernel's caches
# cannot answer, of the bpf tier beside libfuse's multi-threaded loop, in turns.
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && cd /mnt && insmod "$1" || exit 1
mkdir state a w null
"$T_BIN/claudefs" format --size 3G store.img >/dev/null &&
	"$T_BIN/claudefsd" --listen 127.0.0.1:9510 --target store.img --state-dir state --log-file server.log --daemon || exit 1
"$T_BIN/claudefs" mount 127.0.0.1:9510 w -o cachedir=/mnt/cache-w,bpf=off || exit 1
mkdir w/d && echo x >w/d/f && umount w
sleep 2
"$T_BIN/claudefs" mount 127.0.0.1:9510 a -o cachedir=/mnt/cache-a,bpf=on || exit 1
"$T_BIN/null_fuse" null &
until "$T_BIN/claudefs" status /mnt/a >/dev/null 2>&1 && mountpoint -q null; do sleep 0.2; done
mkdir null/d && mkfifo null/d/f
ctl=$(echo /sys/fs/bpf/claudefs/*/maps/ctl)
stat a/d/f >/dev/null
for _ in 1 2 3 4 5 6 7; do
	echo "a $(cd a/d && "$T_BIN/bpfstat" 500 f "$ctl")"
	echo "b $(cd null/d && "$T_BIN/bpfstat" 100 f)"
done | sort -k1,1 -k2,2n | awk '{if (!best[$1]) best[$1] = $2}
	END { printf "%-56s %9.0f %9.0f %8.2f %6s\n", "bpf: stats a second / of libfuse, multi-threaded", 1e9 / best["a"], 1e9 / best["b"],
		best["b"] / best["a"], ">= 10" }'
umount a null
