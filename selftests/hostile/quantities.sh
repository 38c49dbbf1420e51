#!/bin/bash
# A directory of 20,000 names (T_LONG=1: a million), 20,000 open files (100,000), a file of 20,000 extents (a million),
# 65,000 hard links. See selftests/progs/manyfiles.c.
# timeout: 3200
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start 16G
cluster_mount a
cluster_mount b
sizes() { diag "server $(cluster_rss server) KiB, clients $(cluster_rss a) and $(cluster_rss b) KiB"; }
sizes
tap_from timeout "$(long 300 5400)" "$T_PROGS/manyfiles" dir "$(long 20000 1000000)" "$T_DIR/a" "$T_DIR/b"
sizes
tap_from timeout "$(long 120 600)" "$T_PROGS/manyfiles" open "$(long 20000 100000)" "$T_DIR/a"
sizes
pieces=$(long 20000 1000000)
tap_from timeout "$(long 200 7200)" "$T_PROGS/manyfiles" pieces "$pieces" "$T_DIR/a"
sizes
cluster_umount a
cluster_mount a
tap_from timeout "$(long 120 1200)" "$T_PROGS/manyfiles" verify "$pieces" "$T_DIR/a"
tap_from timeout 200 "$T_PROGS/manyfiles" links "$(long 5000 66000)" "$T_DIR/a"
sizes
cluster_end
done_testing
