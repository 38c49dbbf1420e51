#!/bin/bash
# kill -9 of one client under load, three times (T_LONG=1: ten; T_KILLS=n). The other mount goes on: within the lease time it gets at what the
# dead one held. All that was acknowledged is there, seen from the other mount and from a new one.
# timeout: 500
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/kill/load.sh
. "$T_TOP/selftests/kill/load.sh"
cluster_real || skip_all "there is no client to kill"

cluster_start
cluster_mount a
cluster_mount b
kills=${T_KILLS-$(long 3 10)}
for ((round = 1; round <= kills; round++)); do
	load_start "$round" a b a b
	nap 15 30
	cluster_kill9 a
	t0=$SECONDS
	# what the dead client held: its directories and files
	try "round $round: everything of the dead client can be read and changed" timeout "$(slow 60)" sh -c \
		"cat '$T_DIR/b/$round.0'/[fl]* '$T_DIR/b/$round.2'/[fl]* >/dev/null && chmod 700 '$T_DIR/b/$round.0' '$T_DIR/b/$round.2'"
	diag "round $round: looked at everything after $((SECONDS - t0)) s"
	[ $((SECONDS - t0)) -le "$(slow 25)" ] && ok "round $round: leases of the dead client do not last" ||
		not_ok "round $round: leases of the dead client do not last" "$((SECONDS - t0)) s"
	cluster_mount a
	load_stop "$round" 3 0 3 0
	[ "$load_longest" -le "$(slow 20000)" ] && ok "round $round: nobody on the other mount waited longer than 20 s" ||
		not_ok "round $round: nobody on the other mount waited longer than 20 s" "$load_longest ms"
	load_check "$round" b
	load_check "$round" a
done
sleep $((10 + $(slow 5))) # what the dead ones wrote and never committed is looked for every 10 s
diag "$("$T_BIN/claudefs" status --json "$CLUSTER_ADDR" | grep -o "\"scrubbed_objects\": *[0-9]*")"
load_final
garbage=$("$T_BIN/claudefs" fsck --json --config "$T_DIR/claudefsd.conf" | grep -o '"unreferenced_objects": *[0-9]*')
is "${garbage##*[: ]}" 0 "the server has deleted all that dead clients never committed"
done_testing
