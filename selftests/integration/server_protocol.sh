#!/bin/bash
# server_protocol.sh: what claudefsd must refuse of a peer that speaks the protocol wrongly, and that it serves on afterwards.
# variant: asan
# timeout: 120
. "$T_TOP/selftests/lib/tap.sh"
[ -x "$T_BIN/claudefsd" ] || skip_all "no claudefsd in $T_BIN"
raw=$T_PROGS/rawclient
A=127.0.0.1:9521
[ "$T_ISOLATED" != net ] || ip link set lo up
"$T_BIN/claudefs" format --size 512M "$T_DIR/t.img" >"$T_DIR/format.log" 2>&1 ||
	{ echo "not ok 1 - format"; cat "$T_DIR/format.log"; exit 1; }
printf '[server]\nlease_ms = 1000\n' >"$T_DIR/c.conf"
"$T_BIN/claudefsd" --config "$T_DIR/c.conf" --listen $A --state-dir "$T_DIR/state" --target "$T_DIR/t.img" >"$T_DIR/server.log" 2>&1 &
pid=$!
cleanup eval 'kill -KILL $pid 2>/dev/null || :'
wait_for 30 grep -q 'leads with epoch' "$T_DIR/server.log" || { not_ok "claudefsd starts" "$(cat "$T_DIR/server.log")"; exit 1; }

"$raw" $A protocol >"$T_DIR/protocol" 2>&1 || not_ok "rawclient" "$(tail -n 3 "$T_DIR/protocol")"
while read -r line; do # its results are ours
	case $line in
	"ok "*) ok "${line#* - }" ;;
	"not ok "*) not_ok "${line#* - }" ;;
	"1.."*) ;;
	*) diag "$line" ;;
	esac
done <"$T_DIR/protocol"
head -c 100000 /dev/urandom | timeout 5 bash -c "cat >/dev/tcp/${A%:*}/${A#*:}" 2>/dev/null
try "it still serves after noise" "$raw" $A map
try "a file can be written" "$raw" $A write f 100000 3
try "and read" "$raw" $A check f 100000 3
try "SIGTERM ends it" stop_pid $pid 20
wait $pid
is $? 0 "with status 0"
is "$(grep -c 'assertion failed' "$T_DIR/server.log")" 0 "no assertion failed"
done_testing
