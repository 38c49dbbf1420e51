#!/bin/bash
# A server on a zoned NVMe drive: filled to the last zone, deleted and filled again (T_LONG=1: ten times over), and
# cleaning under load; then
# the machine stops dead in the middle of writes, and everything acknowledged is there when it is up again. (It is the
# guest that restarts: QEMU itself does not keep the zones' write pointers when its process ends.)
# timeout: 1200
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
mkdir "$T_DIR/share"
vm_tap --timeout $((${T_LONG:-0} ? 5900 : 1100)) --restarts --append nvme_core.multipath=N --share "$T_DIR/share" --disk "$T_DIR/scratch,size=1G" \
	--nvme "$T_DIR/zns,size=576M,lba=4096,zone=16M,cap=12M,open=8,active=8" \
	--nvme "$T_DIR/small,size=512M,lba=4096,zone=8M,cap=7M" -- "$T_TOP/selftests/vm/guest/zns.sh"
done_testing
