#!/bin/bash
# tiers.sh MODULE: runs in the guest: selftests/run.sh with the cases that run in every tier, in each tier of $T_VM_TIERS. Each case
# is one result of ours; speaks TAP. $T_SUITES and $T_LONG as in ../tiers.sh.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && mkdir /mnt/run && insmod "$1" && insmod "${1%/*}/claudefs_gate.ko" || exit 1
# an emulated machine is some twenty times slower: the same checks, fewer repetitions
if [ "${T_LONG-}" ]; then
	suites='(posix|model|coherence|kill|crash)/'
	export T_ROUNDS=${T_ROUNDS:-8} T_OPS=${T_OPS:-300} T_CUTS=${T_CUTS:-4} T_SECONDS=${T_SECONDS:-4} T_KILLS=${T_KILLS:-2}
else # names, every operation from two mounts, all at once, and all that can die
	suites='(posix/names|model/two_mounts|coherence/concurrent|kill/both)'
	export T_OPS=${T_OPS:-100} T_SEEDS=${T_SEEDS:-21} T_SECONDS=${T_SECONDS:-1} T_KILLS=${T_KILLS:-1}
fi
# every file goes through a gate where that can be
export T_MOUNT_OPTS=${T_MOUNT_OPTS:+$T_MOUNT_OPTS,}pass_min=0
export T_SLOW=20 T_ROOT=/mnt/run JOBS=1 T_TIERS=$T_VM_TIERS
B=$(dirname "$(dirname "$T_BIN")")
export B
n=0 bad=0
while read -r verdict name rest; do # not awk, which waits for more before it says anything
	case $verdict-$name in
	ok-*/*@* | FAIL-*/*@*)
		n=$((n + 1))
		[ "$verdict" = ok ] || bad=$((bad + 1))
		echo "$([ "$verdict" = ok ] || echo "not ")ok $n - $name: $rest"
		;;
	*) echo "# $verdict $name $rest" ;;
	esac
done < <("$T_TOP/selftests/run.sh" "^(${T_SUITES:-$suites}).*@" 2>&1)
echo "1..$n"
rc=$((bad > 0 || n == 0))
[ "$(dmesg | grep -cE 'BUG:|WARNING:|Oops|rcu.*stall|general protection')" = 0 ] || {
	dmesg | grep -E -A25 'BUG:|WARNING:|Oops|stall|general protection' | head -n 60 | sed 's/^/# /'
	rc=1
}
exit "$rc"
