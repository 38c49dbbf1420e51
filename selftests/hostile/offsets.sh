#!/bin/bash
# Offsets and lengths up to 2^63-1: EFBIG beyond 2^60, no cost within; neither server nor client grows.
# See selftests/progs/hugeoff.c.
# timeout: 120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
server=$(cluster_rss server) client=$(cluster_rss a)
tap_from "$T_PROGS/hugeoff" "$T_DIR/a"
diag "server: $server -> $(cluster_rss server) KiB, client: $client -> $(cluster_rss a) KiB"
[ $(($(cluster_rss server) - server)) -lt 65536 ] && ok "the server did not grow" || not_ok "the server did not grow"
[ $(($(cluster_rss a) - client)) -lt 65536 ] && ok "the client did not grow" || not_ok "the client did not grow"
cluster_end
done_testing
