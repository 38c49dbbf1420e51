#!/bin/bash
# The bpf tier where it could break: full maps, epochs at their end, fork, the module going and coming while somebody asks.
# timeout: 1200
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
vm_kmod 7
vm_tap --timeout 1000 --mem 3G --disk "$T_DIR/scratch,size=8G" -- "$T_TOP/selftests/vm/guest/bpf_edges.sh" "$vm_module"
done_testing
