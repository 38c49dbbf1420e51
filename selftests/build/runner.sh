#!/bin/bash
# The test runner counts what a case says, and fails a case that lies, dies, hangs, or leaves something behind.
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"

mkdir -p tree/selftests/lib tree/selftests/c
cp "$T_TOP/selftests/run.sh" tree/selftests/
cp "$T_TOP/selftests/lib/tap.sh" tree/selftests/lib/
fresh() { # NAME LINE...: the only case of the tree
	rm -f tree/selftests/c/*
	printf '%s\n' '#!/bin/bash' "${@:2}" >"tree/selftests/c/$1.sh"
	chmod +x "tree/selftests/c/$1.sh"
}
run() { B=$T_DIR/tree/build tree/selftests/run.sh "$@" 2>&1; }
expect() { # LAST-LINE REGEX WHAT: what the runner says about the tree's case
	local out rc
	out=$(run) && rc=0 || rc=$?
	[ "$rc" = 0 ] || rc=1
	is "$(tail -n 1 <<<"$out") rc=$rc" "$1" "$3"
	[ -z "$2" ] || like "$out" "$2" "$3: the reason"
}

fresh good 'echo 1..3; echo ok 1 - a; echo "ok 2 # SKIP no such device"; echo "not ok 3 # SKIP as cmocka says it"'
expect "1 passed, 0 failed, 2 skipped rc=0" "SKIP no such device" "good"
fresh all_skipped 'echo "1..0 # SKIP no kernel"'
expect "0 passed, 0 failed, 1 skipped rc=1" "no kernel" "a run in which nothing passed is no success"
fresh bad 'echo 1..2; echo ok 1; echo not ok 2 - sum; exit 1'
expect "1 passed, 1 failed, 0 skipped rc=1" "not ok 2 - sum" "a failed test"
fresh short 'echo 1..3; echo ok 1'
expect "1 passed, 1 failed, 0 skipped rc=1" "planned 3 tests, reported 1" "too few"
fresh no_plan 'echo ok 1'
expect "1 passed, 1 failed, 0 skipped rc=1" "no plan" "no plan"
fresh status 'echo 1..1; echo ok 1; exit 3'
expect "1 passed, 1 failed, 0 skipped rc=1" "exited with 3" "exit status"
fresh hangs '# timeout: 1' 'echo 1..1; echo ok 1; sleep 100'
expect "1 passed, 1 failed, 0 skipped rc=1" "more than 1 s" "a hang"
fresh killed 'echo 1..1; echo ok 1; kill -9 $$'
expect "1 passed, 1 failed, 0 skipped rc=1" "killed" "a kill"
fresh daemon 'setsid sleep 77 & echo 1..1; echo ok 1'
expect "1 passed, 1 failed, 0 skipped rc=1" "left behind: processes [0-9]+\(sleep\)" "a daemon left behind"
is "$(pgrep -fx 'sleep 77' | wc -l)" 0 "and it is gone"
fresh fuse 'mkdir m; exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none m' \
	'echo 1..1; echo ok 1'
if [ -w /dev/fuse ]; then
	expect "1 passed, 1 failed, 0 skipped rc=1" "left behind: mounts [^ ]*/m" "a mount left behind"
else
	skip "no /dev/fuse" "a mount left behind"
fi
fresh asan 'echo 1..1; echo ok 1; echo "==1==ERROR: AddressSanitizer: heap-use-after-free" >"$T_DIR/server.log"'
expect "1 passed, 1 failed, 0 skipped rc=1" "sanitizer report in [^ ]*server.log" "a sanitizer's report in a daemon's log"
fresh core 'sh -c "kill -SEGV \$\$"; echo 1..1; echo ok 1'
if [ "$(cat /proc/sys/kernel/core_pattern)" = core ]; then
	expect "1 passed, 1 failed, 0 skipped rc=1" "crashed: " "a crash on the way"
else
	skip "core_pattern is not 'core'" "a crash on the way"
fi
fresh mode 'echo 1..1; echo ok 1'
chmod -x tree/selftests/c/mode.sh
expect "0 passed, 1 failed, 0 skipped rc=1" "ermission denied" "a script that was not made executable"
fresh alone '[ "$(ls -d /proc/[0-9]* | wc -l)" -lt 10 ] || exit 1' '[ "$(ls -A "$T_DIR")" = log ] || exit 1' \
	'(echo >/dev/tcp/127.0.0.1/9510) 2>/dev/null && exit 1; echo 1..1; echo ok 1'
if [ "$T_ISOLATED" ]; then
	expect "1 passed, 0 failed, 0 skipped rc=0" "" "a case sees no process, file or port of others"
else
	skip "no namespaces on this machine" "a case sees no process, file or port of others"
fi
fresh again '[ -e "$T_TOP/second" ] || { touch "$T_TOP/second"; echo "a fault below" >"$T_DIR/again"; echo "not ok 1"; exit 1; }' \
	'echo 1..1; echo ok 1'
expect "1 passed, 0 failed, 0 skipped rc=0" "c/again once more: a fault below" "a fault of the machine below: once more"
fresh again 'echo "a fault below" >"$T_DIR/again"; echo 1..1; echo "not ok 1"; exit 1'
expect "0 passed, 1 failed, 0 skipped rc=1" "once more: a fault below" "and no more than that"
fresh tap '. "$T_TOP/selftests/lib/tap.sh"' 'cleanup echo cleaned' 'is 1 1 a; is 1 2 b; try c true; fails d false' \
	'fails e sh -c "ulimit -c 0; kill -SEGV \$\$"; skip reason f; done_testing'
expect "3 passed, 2 failed, 1 skipped rc=1" "wanted: 2" "tap.sh"
fresh forgot '. "$T_TOP/selftests/lib/tap.sh"' 'ok a'
expect "1 passed, 1 failed, 0 skipped rc=1" "without done_testing" "tap.sh notices an early end"
is "$(run nothing-like-it | tail -n 1)" "0 passed, 0 failed, 0 skipped" "a pattern that matches nothing"
fails "is an error" run nothing-like-it
rm -rf tree # or our own runner would see its crashes
done_testing
