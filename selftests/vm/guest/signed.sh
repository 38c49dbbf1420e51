#!/bin/bash
# signed.sh UNSIGNED SIGNED: runs in a guest that insists on signed modules, and knows none of our keys. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t || exit 1
export T_DIR=/mnt/t T_ISOLATED=''
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
refused() { # FILE: what the kernel says of it
	dmesg -C
	insmod "$1" 2>/dev/null && echo loaded
	dmesg | sed 's/^\[[^]]*\] //'
}
like "$(refused "$1")" "unsigned module" "the unsigned module is refused as such"
like "$(refused "$2")" "unavailable key" "of the signed one only the key is not known"
cluster_start
cluster_mount a
wait_for 20 "$T_BIN/claudefs" status "$T_DIR/a"
like "$("$T_BIN/claudefs" status --json "$T_DIR/a")" '"bpf":\{"state":"unavailable","option":"auto","why":"[^"]+' "a mount says why it has no bpf tier"
try "and works" sh -c "echo hello >'$T_DIR/a/f' && grep -q hello '$T_DIR/a/f'"
cluster_end
done_testing
