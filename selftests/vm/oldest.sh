#!/bin/bash
# The oldest kernel from 5.14 on that Debian has, 6.1: no FUSE passthrough, no io_uring, no newer INIT flags. The plain mount
# works there, and claudefs doctor says what is missing instead of trying it.
# timeout: 900
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 6.1
vm_tap --kernel 6.1 --timeout 600 --disk "$T_DIR/scratch,size=8G" -- "$T_TOP/selftests/vm/guest/smoke.sh"
done_testing
