#!/bin/bash
# Debian's newest kernel, 7.x: the plain mount is coherent there and does what POSIX says; claudefs doctor says which kernel it is.
# timeout: 900
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
vm_tap --timeout 600 --disk "$T_DIR/scratch,size=8G" -- "$T_TOP/selftests/vm/guest/smoke.sh"
done_testing
