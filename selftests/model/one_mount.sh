#!/bin/bash
# Random operations of one process, and of three, on one mount give what a plain directory gives. T_SEEDS="7 8"
# repeats seeds, T_OPS their length. See selftests/progs/model.c.
# timeout: 400
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
mkdir "$T_DIR/oracle"
for seed in ${T_SEEDS-1 2 3 4}; do
	tap_from "$T_PROGS/model" --seed "$seed" --ops "${T_OPS-1500}" --dirs "$T_DIR/a" --oracle "$T_DIR/oracle" || break
done
for seed in ${T_SEEDS-11 12 13}; do
	tap_from "$T_PROGS/model" --seed "$seed" --ops "${T_OPS-1500}" --procs 3 --noise 1 --dirs "$T_DIR/a" --oracle "$T_DIR/oracle" || break
done
cluster_end
done_testing
