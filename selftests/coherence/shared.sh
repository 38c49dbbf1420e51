#!/bin/bash
# One file used by two and by four mounts at the same time: selftests/progs/sharedfile.c. And writes did go through.
# timeout: 500
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

through() { # MOUNT: writes that went through there
	"$T_BIN/claudefs" status --json "$T_DIR/$1" | grep -o '"writes_through": *[0-9]*' | grep -o '[0-9]*$'
}

cluster_start
for m in a b c d; do cluster_mount "$m"; done
tap_from "$T_PROGS/sharedfile" --procs 4 --seconds "${T_SECONDS-3}" "$T_DIR/a" "$T_DIR/b"
tap_from "$T_PROGS/sharedfile" --procs 8 --seconds "${T_SECONDS-3}" "$T_DIR/a" "$T_DIR/b" "$T_DIR/c" "$T_DIR/d"
if cluster_real; then
	enough=$((${T_SLOW:-1} > 1 ? 10 : 100))
	for m in a b c d; do
		n=$(through "$m")
		[ "${n:-0}" -ge $enough ] && ok "mount $m wrote through: $n times" || not_ok "mount $m wrote through" "${n:-no} times"
	done
fi
cluster_end
done_testing
