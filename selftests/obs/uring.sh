#!/bin/bash
# Requests that come by io_uring are counted and traced like others, in the kernel's view and in the client's own.
# timeout: 120
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/uring.sh
. "$T_TOP/selftests/lib/uring.sh"
uring_need

json() { python3 -c "import json, sys; d = [json.loads(l) for l in sys.stdin]; print($1)"; }
answers() { claudefs tier "$T_DIR/$1"; }
creates() { # NAME: makes 50 files while top looks on
	rm -f "$T_DIR/top" # of before: the wait below must see what this one prints
	claudefs top --json --interval 0.5 "$T_DIR/$1" >"$T_DIR/top" 2>&1 &
	top=$!
	wait_for 10 test -s "$T_DIR/top"
	for ((i = 0; i < 50; i++)); do : >"$T_DIR/$1/$1$i"; done
	lines=$(wc -l <"$T_DIR/top") # two more: of an interval that began before the last create, and of one after it
	wait_for 20 sh -c "[ \$(wc -l <'$T_DIR/top') -ge $((lines + 2)) ]"
	kill "$top"
	wait "$top" 2>/dev/null
	sed -i '$!b; /}$/!d' "$T_DIR/top"
	json "'%s %d' % (d[0]['view'], sum(e['ops'].get('create', {}).get('count', 0) for e in d))" <"$T_DIR/top"
}

cluster_start
uring_with Y cluster_mount a
uring_with Y cluster_mount b bpf=off
wait_for 20 answers a
wait_for 20 answers b
is "$(claudefs tier --json "$T_DIR/a" | json "d[0]['uring']['state']")" on "requests come by io_uring"
like "$(creates a)" '^(kernel|client) 50$' "50 creates are counted"
is "$(creates b)" "client 50" "and by the client itself"
claudefs trace --json "$T_DIR/b" >"$T_DIR/trace" 2>"$T_DIR/trace.err" &
pid=$!
wait_for 10 sh -c "stat '$T_DIR/b/warm' 2>/dev/null; test -s '$T_DIR/trace'"
mkdir "$T_DIR/b/a_directory"
wait_for 10 grep -q '"mkdir"' "$T_DIR/trace"
kill "$pid"
wait "$pid" 2>/dev/null
is "$(json "[(e['name'], e['error'], e['latency_ns'] > 0) for e in d if e['op'] == 'mkdir']" <"$T_DIR/trace")" \
	"[('a_directory', 0, True)]" "and traced by it"
cluster_end
done_testing
