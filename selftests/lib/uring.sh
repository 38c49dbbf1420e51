# uring.sh: mounts that take their requests from io_uring. Source it after cluster.sh.
# shellcheck shell=bash
#
#   uring_need                  skips the case where the kernel has no FUSE over io_uring that we may switch on
#   uring_with VALUE COMMAND..  runs COMMAND while fuse.enable_uring is VALUE (Y or N), and puts it back
#
# The parameter is the whole machine's: it is changed only for as long as a mount takes, under a lock on its own file. A
# mount that has its rings keeps them.
URING_PARAM=/sys/module/fuse/parameters/enable_uring

uring_need() {
	cluster_real || skip_all "there is no FUSE below"
	[ -e $URING_PARAM ] || skip_all "this kernel has no FUSE over io_uring (needs 6.14)"
	[ -w $URING_PARAM ] || skip_all "fuse.enable_uring cannot be switched here"
}
uring_put_back() { echo "$uring_before" >$URING_PARAM; }
uring_with() {
	local rc=0
	exec 9<$URING_PARAM
	flock -w 60 9 || { not_ok "fuse.enable_uring is free to be changed"; exit 1; }
	uring_before=$(cat $URING_PARAM)
	cleanup uring_put_back
	echo "$1" >$URING_PARAM
	shift
	"$@" 9<&- || rc=$? # what it starts must not keep the lock
	uring_put_back
	unset 'tap_cleanups[-1]'
	exec 9<&-
	return $rc
}
