#!/bin/bash
# smoke.sh: runs in the guest: a server and two mounts on the kernel that is there, a choice of the coherence and POSIX
# checks (those without thousands of operations), and an fsck of what they leave behind. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t || exit 1
export T_DIR=/mnt/t T_ISOLATED='' T_SLOW=6
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

doctor=$("$T_BIN/claudefs" doctor 2>&1)
rc=$?
diag "$doctor"
is "$rc" 0 "claudefs doctor: what every mount needs is here"
like "$doctor" "^kernel $(uname -r | sed 's/[.+]/\\&/g')" "claudefs doctor names this kernel, $(uname -r)"

cluster_start
cluster_mount a
cluster_mount b
# shellcheck source=selftests/vm/guest/observe.sh
. "$T_TOP/selftests/vm/guest/observe.sh"
tap_from "$T_PROGS/coherence" --rounds 4 "$T_DIR/a" "$T_DIR/b" create rename_ replace listing times xattrs small_file mapped \
	append truncates direct removed_elsewhere
tap_from "$T_PROGS/posix_names" "$T_DIR/a" create_excl link_basic rename_exchange deep_path symlink_loop
tap_from "$T_PROGS/posix_open" "$T_DIR/a" unlinked_open tmpfile_basic readdir_types mknod_types fifo_works exec_works
tap_from "$T_PROGS/posix_data" "$T_DIR/a" append direct_io seek_data fallocate_punch copy_range mmap_shared
cluster_kill9 server # its io_uring, and with it the store, may take a while to be free again
cluster_restart
tap_from "$T_PROGS/posix_attrs" "$T_DIR/a" write_setid suid_exec access_supplementary utimens_exact acl_access
tap_from "$T_PROGS/posix_locks" "$T_DIR/a" conflicts ofd wait_signal
cluster_end
try "fsck finds nothing wrong" cluster_fsck
done_testing
