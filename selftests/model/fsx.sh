#!/bin/bash
# One file under random reads, writes, truncates, mappings, holes, copies and direct I/O has the right bytes:
# through one mount, and through two mounts in turn. See selftests/progs/fsx.c.
# timeout: 300
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
cluster_mount b
for seed in ${T_SEEDS-1 2 3}; do
	tap_from "$T_PROGS/fsx" --seed "$seed" --ops "${T_OPS-5000}" "$T_DIR/a/one$seed" || break
done
tap_from "$T_PROGS/fsx" --seed 4 --ops "${T_OPS-3000}" --size 20000 "$T_DIR/a/small" # around what an inode holds
for seed in ${T_SEEDS-11 12 13}; do
	tap_from "$T_PROGS/fsx" --seed "$seed" --ops "${T_OPS-3000}" "$T_DIR/a/two$seed" "$T_DIR/b/two$seed" || break
done
tap_from "$T_PROGS/fsx" --seed 14 --ops "${T_OPS-3000}" --size 20000 "$T_DIR/a/small2" "$T_DIR/b/small2"
cluster_end
done_testing
