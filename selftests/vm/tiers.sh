#!/bin/bash
# Cases tagged "tiers: yes" in the tiers that only the test machine has: T_LONG=1 runs all of them with the bpf tier, with gates (passthrough),
# and with all tiers at once; otherwise a few of them with all. T_VM_TIERS picks tiers, T_SUITES (a regular expression) cases.
# timeout: 1500
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
vm_kmod 7
limit=1400 tiers=all
[ -z "${T_LONG-}" ] || limit=10000 tiers="bpf passthrough all"
export T_VM_TIERS=${T_VM_TIERS:-$tiers}
vm_tap --timeout $limit --mem 4G --append fuse.enable_uring=1 --disk "$T_DIR/scratch,size=24G" \
	-- "$T_TOP/selftests/vm/guest/tiers.sh" "$vm_module"
done_testing
