#!/bin/bash
# Two mounts, one process: the next call on one mount sees what the last on the other did, in every kind of cache.
# See selftests/progs/coherence.c.
# timeout: 400
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
cluster_mount b
tap_from "$T_PROGS/coherence" --rounds "${T_ROUNDS-$(long 60 1000)}" "$T_DIR/a" "$T_DIR/b"
cluster_end
done_testing
