#!/bin/bash
# Server and clients built with ThreadSanitizer, two mounts at work at once: no data race in their threads.
# What they compute is proved elsewhere; here the only question is what the sanitizer says.
# timeout: 400
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"

tsan=$(dirname "$(dirname "$T_BIN")")/tsan
[ -x "$tsan/bin/claudefs" ] || { not_ok "built with VARIANT=tsan" "no $tsan/bin/claudefs"; done_testing; exit; }
T_BIN=$tsan/bin
export T_BIN TSAN_OPTIONS="log_path=$T_DIR/tsan exitcode=0 report_bugs=1 history_size=4"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_start
cluster_mount a
cluster_mount b
timeout "$(slow 100)" "$T_PROGS/coherence" --rounds 2 "$T_DIR/a" "$T_DIR/b" >"$T_DIR/sequential.log" 2>&1
timeout "$(slow 200)" "$T_PROGS/contend" --seconds 1 "$T_DIR/a" "$T_DIR/b" >"$T_DIR/concurrent.log" 2>&1
if [ "$(cat "$T_DIR"/{sequential,concurrent}.log | grep -c '^ok')" -gt 20 ]; then
	ok "work was done"
else
	not_ok "work was done" "$(tail -n 5 "$T_DIR"/{sequential,concurrent}.log)"
fi
cluster_end
found=$(cat "$T_DIR"/tsan.* 2>/dev/null | grep -c '^WARNING: ThreadSanitizer')
if [ "$found" = 0 ]; then
	ok "no data race"
else
	not_ok "no data race" "$(cat "$T_DIR"/tsan.* | grep '^SUMMARY' | sort | uniq -c | sort -rn | head -n 20)"
fi
done_testing
