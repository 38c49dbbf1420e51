#!/bin/bash
# POSIX, one mount: selftests/progs/posix_names.c tells what is checked.
# timeout: 180
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
tap_from "$T_PROGS/posix_names" "$T_DIR/a"
cluster_end
done_testing
