#!/bin/bash
# server_config.sh: claudefsd refuses what it cannot do, each time with one clear line and status 1 (2: wrong use).
# parallel: yes
# timeout: 120
. "$T_TOP/selftests/lib/tap.sh"
[ -x "$T_BIN/claudefsd" ] || skip_all "no claudefsd in $T_BIN"

conf() { printf '%s\n' "$@" >"$T_DIR/c.conf"; }
refused() { # STATUS REGEX WHAT ARGS...: one line that matches, and that status
	local want=$1 regex=$2 what=$3 out rc
	shift 3
	out=$(timeout 20 "$T_BIN/claudefsd" "$@" 2>&1 >/dev/null) && rc=0 || rc=$?
	if [ "$rc" != "$want" ]; then
		not_ok "$what" "exit $rc, not $want: $out"
	elif [ "$want" = 1 ] && [ "$(wc -l <<<"$out")" != 1 ]; then
		not_ok "$what" "more than one line: $out"
	else
		like "$out" "$regex" "$what"
	fi
}
format() { "$T_BIN/claudefs" format --size 512M "$@" >"$T_DIR/format.log" 2>&1; }

is "$("$T_BIN/claudefsd" --help | wc -l | awk '{print ($1 <= 24)}')" 1 "--help fits a screen"
like "$("$T_BIN/claudefsd" --version)" '^claudefsd [0-9]' "--version"
refused 2 'unrecognized' "an unknown option" --frobnicate
refused 2 'unexpected' "an argument" something
refused 2 'host:port' "a bad address" --listen nonsense --target /x
refused 1 'no target' "no target" --listen 127.0.0.1:0
refused 1 'nowhere.conf: No such file' "no configuration file" --config "$T_DIR/nowhere.conf"

conf '[server]' 'listen = 127.0.0.1:9510' 'frob = 1' '[target.0]' 'path = /x'
refused 1 "c\.conf:3: .*frob.*unknown key" "an unknown key" --config "$T_DIR/c.conf" --check-config
conf '[server]' 'lease_ms = soon' '[target.0]' 'path = /x'
refused 1 "c\.conf:2: .*lease_ms.*number" "a bad value" --config "$T_DIR/c.conf" --check-config
conf '[server]' 'listen = 127.0.0.1:9510' '[target.0]' 'path = /x'
try "--check-config accepts a right one" "$T_BIN/claudefsd" --config "$T_DIR/c.conf" --check-config
try "the example is right" "$T_BIN/claudefsd" --config "$T_TOP/docs/claudefsd.conf.example" --check-config

args=(--listen 127.0.0.1:9611 --state-dir "$T_DIR/state")
truncate -s 512M "$T_DIR/raw.img"
refused 1 "raw\.img is not a ClaudeFS target: run 'claudefs format" "an unformatted target" "${args[@]}" --target "$T_DIR/raw.img"
refused 1 'absent\.img: No such file' "an absent target" "${args[@]}" --target "$T_DIR/absent.img"
refused 1 'state directory .*: ' "a state directory that cannot be" --listen 127.0.0.1:9611 --state-dir /proc/nowhere/state \
	--target "$T_DIR/raw.img"
refused 1 'log file .*: ' "a log file that cannot be" "${args[@]}" --target "$T_DIR/raw.img" --log-file /proc/nowhere

if ! format "$T_DIR/a.img" || ! format "$T_DIR/b.img"; then
	not_ok "format" "$(cat "$T_DIR/format.log")"
	exit 1
fi
refused 1 'belongs to another cluster' "targets of two clusters" "${args[@]}" --target "$T_DIR/a.img" --target "$T_DIR/b.img"
refused 1 'cannot listen on 203\.0\.113\.1:9611' "an address of another machine" --listen 203.0.113.1:9611 \
	--state-dir "$T_DIR/state" --target "$T_DIR/a.img"
cp --sparse=always "$T_DIR/a.img" "$T_DIR/bad.img"
dd if=/dev/urandom of="$T_DIR/bad.img" bs=64K count=16 conv=notrunc status=none
refused 1 'bad\.img' "a damaged superblock" "${args[@]}" --target "$T_DIR/bad.img"

"$T_BIN/claudefsd" "${args[@]}" --target "$T_DIR/a.img" >"$T_DIR/one.log" 2>&1 &
pid=$!
cleanup eval "kill -KILL $pid 2>/dev/null || :"
wait_for 20 grep -q 'serving on' "$T_DIR/one.log" || not_ok "a server starts" "$(cat "$T_DIR/one.log")"
refused 1 'a\.img is in use' "a target in use" --listen 127.0.0.1:9612 --state-dir "$T_DIR/state2" --target "$T_DIR/a.img"
refused 1 'listen on 127\.0\.0\.1:9611.*in use' "a port in use" --listen 127.0.0.1:9611 --state-dir "$T_DIR/state2" \
	--target "$T_DIR/b.img"
refused 1 'state.*in use by another server' "a state directory in use" --listen 127.0.0.1:9612 --state-dir "$T_DIR/state" \
	--target "$T_DIR/b.img"
out=$("$T_BIN/claudefsd" --daemon --listen 127.0.0.1:9611 --state-dir "$T_DIR/state2" --target "$T_DIR/b.img" 2>&1)
is $? 1 "--daemon returns 1 when the server cannot serve"
like "$out" '^claudefsd: cannot listen on [^'$'\n'']*$' "and prints its one line"
try "SIGTERM ends the server" stop_pid $pid
wait $pid
is $? 0 "with status 0"
is "$(stat -c %a "$T_DIR/state")" 700 "the state directory was made for us alone"
done_testing
