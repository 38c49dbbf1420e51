#!/bin/bash
# bpf_guest.sh MODULE FILES: runs in the test machine for kernel.d/bpf.sh, and prints its rows: instructions (the clock counts them) and
# requests, the fewer the better. The drive `files` has a store in which FILES names stand in one directory, ten in another.
. "$T_TOP/selftests/lib/vm_guest.sh"
files=$2
guest_modules fuse virtio_blk ext4 && mkdir -p /mnt && mount -t ext4 "$(guest_drive files)" /mnt && cd /mnt && insmod "$1" || exit 1
mkdir a b
"$T_BIN/claudefsd" --listen 127.0.0.1:9510 --target store.img --state-dir state --log-file server.log --daemon || exit 1
mounted() { # NAME OPTIONS
	"$T_BIN/claudefs" mount 127.0.0.1:9510 "$1" -o "cachedir=/mnt/cache-$1,$2" || exit 1
	until "$T_BIN/claudefs" status "/mnt/$1" >/dev/null 2>&1; do sleep 0.2; done
}
status() { "$T_BIN/claudefs" status --json "/mnt/$1"; }
row() { printf '%-56s %9s %9s %8s %6s\n' "$1" "$2" "$3" "$(awk -v a="$2" -v b="$3" 'BEGIN {printf "%.2f", a / b}')" "$4"; }
cold() { echo 2 >/proc/sys/vm/drop_caches; }

mounted a bpf=on,bpf_mem=128M
mounted b bpf=off
ctl=$(echo /sys/fs/bpf/claudefs/*-a/maps/ctl)

# ---- a stat
cd a/d && stat f >/dev/null || exit 1
cached=$("$T_BIN/bpfstat" 2000 f)
cold
# two answers: the name and its attributes; those of the directory stay in the kernel while it is the working directory
answered=$("$T_BIN/bpfstat" 500 f "$ctl")
row "bpf: instructions of a stat, kernel keeps 0 s / cached" "$answered" "$cached" -
row "bpf: instructions of a stat, kernel keeps 0 s / 11000" "$answered" 11000 "<= 1"
cd /mnt

# ---- ls -lR of what was never looked up
prefetched() { status a | sed -n 's/.*"prefetched_entries":\([0-9]*\).*/\1/p'; }
requests() { # of these kinds, that reached the daemon
	status a | sed 's/.*"fuse":{\([^}]*\)}.*/\1/' | tr , '\n' | awk -F: -v k="$1" '$1 ~ k {n += $2} END {print n + 0}'
}
each='"(lookup|getattr|statx|getxattr|listxattr)"'
opened() { for d; do python3 -c "import os; os.close(os.open('a/$d', os.O_RDONLY | os.O_DIRECTORY))"; done; }
opened t/many
for _ in $(seq 600); do
	[ "$(prefetched)" -lt "$files" ] || break
	sleep 1
done
opened t t/ten
sleep 1
[ "$(prefetched)" -ge "$files" ] || { echo "bpf: only $(prefetched) of $files names were fetched"; exit 1; }
cold
before=$(requests "$each") dirs=$(requests readdir)
listed=$(ls -lR a/t | grep -c '^p')
row "bpf: ls -lR of $listed files never looked up: requests / files" "$(($(requests "$each") - before))" "$listed" "= 0"
row "bpf: ... and READDIRs / files" "$(($(requests readdir) - dirs))" "$listed" -

# ---- recalls
"$T_BIN/recallbench" 20 a/t/ten b/t/ten >/dev/null
few=$("$T_BIN/recallbench" 60 a/t/ten b/t/ten)
many=$("$T_BIN/recallbench" 60 a/t/many b/t/many)
row "bpf: instructions of 3 recalls, $files names known / 10" "$many" "$few" "<= 2"
umount a b
