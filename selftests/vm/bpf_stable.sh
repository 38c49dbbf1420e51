#!/bin/bash
# The bpf tier, as in bpf.sh, on the kernel that Debian 13 is shipped with, 6.12: fs/fuse and the module's ways into it are
# others there.
# timeout: 1200
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 6.12
vm_kmod 6.12
vm_tap --kernel 6.12 --timeout 1000 --mem 3G --disk "$T_DIR/scratch,size=8G" -- "$T_TOP/selftests/vm/guest/bpf.sh" "$vm_module"
done_testing
