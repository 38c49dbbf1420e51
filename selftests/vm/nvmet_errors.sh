#!/bin/bash
# Bad places on a drive behind a network: a device mapper table below the kernel's NVMe target lets reads or writes of some
# blocks fail, over TCP (T_LONG=1: loop and RDMA as well). Errors name target and place, what is elsewhere can be read and written, nothing is
# damaged by them, fsck names what cannot be read; and when the drive is mended all of it is there.
# timeout: 1300
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
vm_tap --timeout 1200 --disk "$T_DIR/scratch,size=2G" -- "$T_TOP/selftests/vm/guest/nvmet_errors.sh"
done_testing
