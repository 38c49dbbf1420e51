#!/bin/bash
# A hostile peer on the server's port: the server answers or closes, stays alive, does not grow, and a mount works on
# meanwhile. See selftests/progs/badframes.c.
# timeout: 400
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "there is no server"
cluster_start
cluster_mount a
echo before >"$T_DIR/a/file"
rss=$(cluster_rss server)
pid=$(cluster_pid server)
( # a mount that works on
	while [ ! -e "$T_DIR/enough" ]; do
		echo x >"$T_DIR/a/x" && [ "$(cat "$T_DIR/a/x")" = x ] && rm "$T_DIR/a/x" || { echo failed >"$T_DIR/mount-failed"; exit 1; }
		sleep 0.05
	done
) &
worker=$!
cleanup stop_pid $worker
for seed in ${T_SEEDS-1 2}; do
	tap_from "$T_PROGS/badframes" 127.0.0.1 9510 "$seed"
done
touch "$T_DIR/enough"
wait "$worker"
[ ! -e "$T_DIR/mount-failed" ] && ok "the mount worked all the time" || not_ok "the mount worked all the time"
is "$(cluster_pid server) $(tap_gone "$pid" && echo gone)" "$pid " "the server lives"
is "$(cat "$T_DIR/a/file")" before "and has its files"
diag "server: $rss -> $(cluster_rss server) KiB"
[ $(($(cluster_rss server) - rss)) -lt 131072 ] && ok "the server did not grow by 128 MiB" || not_ok "the server did not grow by 128 MiB"
cluster_end
done_testing
