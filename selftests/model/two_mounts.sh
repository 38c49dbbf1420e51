#!/bin/bash
# Random operations of four processes on two mounts, in lock-step, with others working beside, give what a plain
# directory gives: every call sees what the last one on the other mount did. See selftests/progs/model.c.
# timeout: 400
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
cluster_mount b
mkdir "$T_DIR/oracle"
for seed in ${T_SEEDS-21 22 23 24 25 26}; do
	tap_from "$T_PROGS/model" --seed "$seed" --ops "${T_OPS-1500}" --procs 4 --noise 2 --dirs "$T_DIR/a" "$T_DIR/b" \
		--oracle "$T_DIR/oracle" || break
done
cluster_end
done_testing
