# shellcheck shell=bash
# observe.sh: sourced by smoke.sh, with a mount at $T_DIR/a: where the kernel has the tracepoints (6.10) claudefs top counts by what the
# kernel sees, elsewhere by what the client sees, and says why.
"$T_BIN/claudefs" top --json --interval 2 "$T_DIR/a" >"$T_DIR/top" 2>&1 &
observe_top=$!
wait_for 60 test -s "$T_DIR/top"
for ((i = 0; i < 20; i++)); do : >"$T_DIR/a/observed$i"; done
observe_lines=$(wc -l <"$T_DIR/top")
wait_for 60 sh -c "[ \$(wc -l <'$T_DIR/top') -ge $((observe_lines + 2)) ]"
kill "$observe_top"
wait "$observe_top" 2>/dev/null
view=client
[ "$(printf '6.10\n%s\n' "$(uname -r | cut -d. -f1,2)" | sort -V | head -n 1)" != 6.10 ] || view=kernel
like "$(sed -n 1p "$T_DIR/top")" "\"view\":\"$view\"" "claudefs top has the $view's view"
[ "$view" = kernel ] || like "$(sed -n 1p "$T_DIR/top")" '"why":".*(tracepoint|BPF)' "and says why not the kernel's"
is "$(grep -o '"create":{"count":[0-9]*' "$T_DIR/top" | awk -F: '{n += $3} END {print n + 0}')" 20 "which counts 20 creates"
like "$(cat /sys/fs/bpf/claudefs/*/sessions)" ' live ' "the table of sessions"
