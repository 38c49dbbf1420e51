#!/bin/bash
# sched.sh: runs in the guest, speaks TAP: claudefsd under its own scheduler, and what ends that. See ../sched.sh.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t || exit 1
export T_DIR=/mnt/t T_ISOLATED=''
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

scheduler() { "$T_BIN/claudefs" status --json "$CLUSTER_ADDR" | sed -n 's/^ *"scheduler": "\(.*\)",*$/\1/p'; }
scheduler_is() { [[ $(scheduler) = $1* ]]; }
policies() { # of the server's threads, as the kernel numbers them: 0 default, 7 sched_ext
	local t
	for t in "/proc/$(cluster_pid server)"/task/*/stat; do awk '{sub(/.*\) /, ""); print $39}' "$t"; done | sort -u | xargs
}
ops() { cat /sys/kernel/sched_ext/root/ops 2>/dev/null; }

tune() { # SLICES... STARVE GIVE_UP, in ns: the scheduler's settings, as an administrator changes them
	local v out= i
	for v in "$@"; do for i in 0 8 16 24 32 40 48 56; do out+=" $((v >> i & 255))"; done; done
	# shellcheck disable=SC2086 # bytes
	PATH=$PATH:/usr/sbin:/sbin bpftool map update name tunables key 0 0 0 0 value $out
}

cluster_start
# An emulated CPU may stand still for longer than any real one, so it must not give up for that.
try "its settings can be changed while it is at work" tune 3000000 3000000 4000000 20000000 0
cluster_mount a
is "$(scheduler)" ext "claudefsd uses its scheduler, and its status says so"
is "$(ops)" claudefs_meta "the kernel has it loaded"
is "$(cat /sys/kernel/sched_ext/switch_all)" 0 "it has no threads but those that asked for it"
is "$(policies)" 7 "all threads of the server did"
like "$("$T_BIN/claudefs" doctor)" 'sched_ext +yes, at work' "claudefs doctor sees it at work"
try "the mount works under it" cp -r "$T_TOP/user/ring" "$T_DIR/a/"
sync "$T_DIR/a/ring"/*
try "what was written is right" diff -r "$T_TOP/user/ring" "$T_DIR/a/ring"

fails "a second server that insists on one does not start" timeout 20 "$T_BIN/claudefsd" --sched ext --listen 127.0.0.1:9600 \
	--state-dir "$T_DIR/state2" --target "$T_DIR/store.img"

echo S >/proc/sysrq-trigger # the administrator takes all schedulers away
touch "$T_DIR/a/after"
if wait_for 20 scheduler_is 'off: the kernel ended it'; then
	ok "taken away: status says so"
else
	not_ok "taken away: status says so" "$(scheduler)"
fi
is "$(policies)" 0 "all threads are in the default class again"
try "the mount still works" diff -r "$T_TOP/user/ring" "$T_DIR/a/ring"
cluster_end

cluster_restart
tune 3000000 3000000 4000000 20000000 0
is "$(scheduler)" ext "after a restart it is there again"
cluster_stop
is "$(cat /sys/kernel/sched_ext/state)" disabled "and it ends with the server"


cluster_restart
tune 3000000 3000000 4000000 20000000 0
is "$(scheduler)" ext "started once more"
cluster_kill9 server
default_again() { [ "$(cat /sys/kernel/sched_ext/state)" = disabled ]; }
try "it ends with a server that is killed, too" wait_for 20 default_again

tap_from "$T_PROGS/schedstall"
done_testing
