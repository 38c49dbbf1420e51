#!/bin/bash
# On a full store what is removed makes room at once: files are removed and, without a pause, as much is written again, over and
# over, and no write ends with ENOSPC, though objects are deleted and segments cleaned in the background. New names and small
# files can be made at once, too. What really does not fit is refused soon.
# timeout: 300
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "this would fill a real file system"
cluster_start 512M
cluster_mount a
dd if=/dev/urandom of="$T_DIR/random" bs=1M count=8 status=none
put() { dd if="$T_DIR/random" of="$T_DIR/a/$1" bs=1M conv=fsync status=none; }
n=0
while [ $n -lt 100 ] && put f$n 2>"$T_DIR/error"; do n=$((n + 1)); done
like "$(cat "$T_DIR/error")" "No space left" "$n files of 8 MiB fill it"
rm -f "$T_DIR/a/f$n"
some_free() { [ $(($(stat -f -c '%a * %S' "$T_DIR/a") >> 20)) -ge 12 ]; }
for ((spare = 0; spare < 8; spare++)); do # the journal may take another segment meanwhile
	wait_for 3 some_free && break
	n=$((n - 1))
	rm "$T_DIR/a/f$n"
done
diag "$spare files less, and 12 MiB are free"

seconds=0 slowest=0
for ((round = 0; round < 12; round++)); do
	rm "$T_DIR/a/f$((round % n))" "$T_DIR/a/f$(((round + n / 3) % n))" "$T_DIR/a/f$(((round + n / 2) % n))"
	start=$SECONDS
	: >"$T_DIR/a/new$round" || break
	for k in $((round % n)) $(((round + n / 3) % n)) $(((round + n / 2) % n)); do put "f$k" 2>"$T_DIR/error" || break 2; done
	took=$((SECONDS - start)) seconds=$((seconds + took))
	[ $took -le $slowest ] || slowest=$took
done
is "$round" 12 "rounds of removing 24 MiB and writing them at once" || diag "$(cat "$T_DIR/error"; df -m "$T_DIR/a"; tail -n 3 "$T_DIR/claudefsd.log")"
diag "$seconds s in all, the slowest $slowest s"

start=$SECONDS
while put "more$((n++))" 2>"$T_DIR/error"; do [ $n -lt 200 ] || break; done
like "$(cat "$T_DIR/error")" "No space left" "what does not fit is refused"
[ $((SECONDS - start)) -le 40 ] && ok "within $((SECONDS - start)) s" || not_ok "within 40 s" "$((SECONDS - start))"
rm -f "$T_DIR"/a/more*
same() { for f in "$T_DIR"/a/f*; do cmp -s "$f" "$T_DIR/random" || { echo "$f is damaged"; return 1; }; done; }
try "what is there is whole" same
cluster_end
done_testing
