#!/bin/bash
# kill -9 of the server under load, three times (T_LONG=1: ten; T_KILLS=n). The mounts wait and go on by themselves: no call fails, open files,
# files without a name and locks survive, and all that was acknowledged is there, also after fsck and a new start.
# timeout: 400
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/kill/load.sh
. "$T_TOP/selftests/kill/load.sh"
cluster_real || skip_all "there is no server to kill"

cluster_start
cluster_mount a
cluster_mount b
kills=${T_KILLS-$(long 3 10)}
for ((round = 1; round <= kills; round++)); do
	load_start "$round" a b a b -- --unsynced
	nap 10 30
	cluster_kill9 server
	nap 0 15
	cluster_restart
	nap 10 20
	load_stop "$round" 0 0 0 0
	[ "$load_longest" -le "$(slow 20000)" ] && ok "round $round: nobody waited longer than 20 s" ||
		not_ok "round $round: nobody waited longer than 20 s" "$load_longest ms"
	load_check "$round" b
done
load_check_all a
load_final
done_testing
