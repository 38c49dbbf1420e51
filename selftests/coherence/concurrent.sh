#!/bin/bash
# Two mounts, four processes at once: appends, versions, races for a name, locks, a storm in one directory.
# See selftests/progs/contend.c.
# timeout: 400
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
cluster_mount b
tap_from "$T_PROGS/contend" --procs 4 --seconds "${T_SECONDS-4}" "$T_DIR/a" "$T_DIR/b"
cluster_end
done_testing
