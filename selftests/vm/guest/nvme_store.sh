#!/bin/bash
# nvme_store.sh: runs in the guest: the store's unit tests with an NVMe drive below. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules nvme && mkdir /tmp/t && cd /tmp/t || exit 1
export T_DIR=/tmp/t T_ISOLATED=''
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"

run() { # DRIVE TEST [VARIABLE=VALUE]...
	local drive=$1 test=$2 since=$SECONDS rc=0
	shift 2
	guest_drive "$drive" >/dev/null || exit 1
	env "T_DEV=nvme:serial.$drive.1" "$@" "$T_UNIT/$test" >out 2>&1 || rc=$?
	# a device that did not do what the model does ends the program with one line
	if [ $rc = 0 ]; then ok "$test on $drive"; else not_ok "$test on $drive" "$(grep -v ' OK \| RUN ' out | tail -n 20)"; fi
	diag "$(tail -n 1 out | sed 's/^# //'), $((SECONDS - since)) s"
}
if [ "${T_LONG-}" ]; then
	for drive in u512 u4k uzns; do
		for test in test_store test_journal test_crash; do run $drive $test; done
	done
	run uzns test_zones
else
	run u512 test_journal T_KIND=0
	run u4k test_store T_KIND=2
	run u4k test_crash CRASH_SEEDS=1 CRASH_CUTS=3 T_KIND=2
	run uzns test_journal
	run uzns test_zones
	run uzns test_crash CRASH_SEEDS=1 CRASH_CUTS=3
fi
done_testing
