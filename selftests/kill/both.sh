#!/bin/bash
# kill -9 of the server and of a client at once, under load, three times (T_LONG=1: ten; T_KILLS=n): as after a power cut of the machine they
# ran on, but for the page cache. All that was acknowledged is there; the surviving mount goes on.
# timeout: 500
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
	load_start "$round" a b a b
	nap 15 30
	if [ $((round % 2)) = 0 ]; then
		cluster_kill9 a
		cluster_kill9 server
	else
		cluster_kill9 server
		cluster_kill9 a
	fi
	nap 0 10
	cluster_restart
	cluster_mount a
	nap 20 30
	load_stop "$round" 3 0 3 0
	load_check "$round" a
	load_check "$round" b
done
load_final
done_testing
