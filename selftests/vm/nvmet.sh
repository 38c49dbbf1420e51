#!/bin/bash
# Drives behind a network: the kernel's NVMe target over loop, TCP and RDMA as drives of a server. Under load controllers are
# reset, connections and namespaces go away and come back, controllers are removed, the server is killed; then namespaces
# come back with other block sizes, shrunk, or formatted anew. Nothing acknowledged is lost, and errors are clear.
# timeout: 1300
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
vm_tap --timeout 1200 --disk "$T_DIR/scratch,size=3G" -- "$T_TOP/selftests/vm/guest/nvmet.sh"
done_testing
