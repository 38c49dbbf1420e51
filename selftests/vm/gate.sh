#!/bin/bash
# Passthrough of ordinary files on Debian's newest kernel, by the module claudefs_gate: the module alone; reads, writes and mappings that
# never reach the client; two mounts that take a file from each other; deaths and ends. One boot. RECALL_SECONDS=, SEED=.
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
vm_tap --timeout 1000 --mem 3G --disk "$T_DIR/scratch,size=8G" -- "$T_TOP/selftests/vm/guest/gate.sh" "${vm_module%/*}/claudefs_gate.ko"
done_testing
