# vm_bpf.sh: what scripts in the test machine share that test the bpf tier. Source it after cluster.sh.
# shellcheck shell=bash
#
#   state NAME                  the status of mount NAME, JSON
#   asked NAME                  how many look-ups, attributes and extended attributes its daemon was asked for, so far
#   tier NAME                   what its bpf tier says of itself
#   hits NAME                   requests that the program answered, so far
#   cold                        empties the kernel's own caches
#   quiet NAME WHAT COMMAND...  a result: COMMAND succeeds with cold caches, its daemon is asked nothing, and the program answers
#   is_quiet NAME COMMAND...    the same without a result, for wait_for
#   kernel_well                 a result: the kernel's log has nothing to complain of
state() { "$T_BIN/claudefs" status --json "$T_DIR/$1"; }
asked() {
	state "$1" | sed 's/.*"fuse":{\([^}]*\)}.*/\1/' | tr , '\n' |
		awk -F: '/"(lookup|getattr|statx|getxattr)"/ {n += $2} END {print n + 0}'
}
tier() { state "$1" | sed -n 's/.*"bpf":{\("state[^}]*\)}.*/\1/p'; }
hits() { tier "$1" | tr , '\n' | awk -F: '/_hit"/ {n += $2} END {print n + 0}'; }
cold() { echo 2 >/proc/sys/vm/drop_caches; }
is_quiet() {
	local name=$1 hit
	shift
	cold
	quiet_before=$(asked "$name") hit=$(hits "$name")
	quiet_out=$("$@" 2>&1) && [ "$(asked "$name")" = "$quiet_before" ] && [ "$(hits "$name")" -gt "$hit" ]
}
quiet() {
	local name=$1 what=$2
	shift 2
	if is_quiet "$name" "$@"; then
		ok "$what: no request"
	else
		not_ok "$what: no request" "requests $quiet_before -> $(asked "$name"): $*"$'\n'"$quiet_out"$'\n'"$(tier "$name")"
	fi
}
absent() { ! stat "$@" >/dev/null 2>&1; }
kernel_well() {
	is "$(dmesg | grep -cE 'BUG:|WARNING:|Oops|rcu.*stall|general protection')" 0 "the kernel has nothing to complain of" ||
		diag "$(dmesg | grep -E -A25 'BUG:|WARNING:|Oops|stall|general protection' | head -60)"
}
