# vm_guest.sh: what scripts that run inside the test machine share. Source it: . "$T_TOP/selftests/lib/vm_guest.sh"
# shellcheck shell=bash
#
#   guest_drive SERIAL [char]   prints the block device (or NVMe character device) with this serial number, which is
#                               the last part of the file's name given to --disk or --nvme; waits for it to appear
#   guest_modules NAME...       loads kernel modules
#   guest_scratch SERIAL DIR    makes ext4 on that drive and mounts it at DIR: a place that takes O_DIRECT
guest_modules() { modprobe -a "$@"; }
guest_drive() {
	local i dev
	for i in {1..100}; do # NVMe is probed in the background, in no certain order
		for dev in /sys/block/*/serial /sys/block/*/device/serial; do
			[ "$({ tr -d " " <"$dev"; } 2>/dev/null)" = "$1" ] || continue
			dev=${dev#/sys/block/} dev=/dev/${dev%%/*}
			[ "${2-}" != char ] || dev=${dev/nvme/ng}
			[ -e "$dev" ] || continue
			echo "$dev"
			return 0
		done
		sleep 0.1
	done
	echo "no drive with the serial number $1 in this guest" >&2
	return 1
}
guest_scratch() {
	local dev
	guest_modules virtio_blk ext4 && dev=$(guest_drive "$1") && mkdir -p "$2" &&
		mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1 "$dev" && mount -t ext4 "$dev" "$2"
}
