#!/bin/bash
# Requests are counted and timed: of 1000 creates, top counts 1000 in the kernel's view and in the client's own; percentiles are in order;
# another mount's requests are not counted; the hot file is named; trace prints what a process and a file ask, with
# results; when the last one who looks is gone, or is killed, no program stays attached.
# timeout: 200
# variant: asan
. "$T_TOP/selftests/lib/tap.sh"
. "$T_TOP/selftests/lib/cluster.sh"

json() { python3 -c "import json, sys; d = [json.loads(l) for l in sys.stdin]; print($1)"; }
status() { claudefs status --json "$T_DIR/$1" | python3 -c "import json, sys; print(json.load(sys.stdin)$2)"; }
mounted() { # NAME [OPTS]
	cluster_mount "$@"
	wait_for 10 status "$1" "['bpf']" || not_ok "mount $1 answers questions"
}
creates() { python3 -c "
import os, sys
for i in range(1000): os.close(os.open(f'{sys.argv[1]}/{sys.argv[2]}{i}', os.O_CREAT | os.O_EXCL | os.O_WRONLY))" "$1" "$2"; }
looking() { # NAME COMMAND...: runs it while top looks at NAME; its lines to $T_DIR/top
	rm -f "$T_DIR/top" # of before: the wait below must see what this one prints
	claudefs top --json --interval 0.5 "$T_DIR/$1" >"$T_DIR/top" 2>"$T_DIR/top.err" &
	top=$!
	wait_for 10 test -s "$T_DIR/top" || diag "top: $(cat "$T_DIR/top.err")"
	shift
	"$@"
	lines=$(wc -l <"$T_DIR/top") # two more: of an interval that began before the last request, and of one after it
	wait_for 20 sh -c "[ \$(wc -l <'$T_DIR/top') -ge $((lines + 2)) ]"
	kill "$top"
	wait "$top" 2>/dev/null
	sed -i '$!b; /}$/!d' "$T_DIR/top"
}
bpf_fds() { find "/proc/$(cluster_pid "$1")/fd" -lname 'anon_inode:*bpf*' | wc -l; } # what a client has loaded and attached
detached() { [ "$(bpf_fds a)" = "$before" ]; }

cluster_start
mounted a
mounted b
mounted c bpf=off
before=$(bpf_fds a)

looking c creates "$T_DIR/c" x
is "$(json "set(e['view'] for e in d)" <"$T_DIR/top")" "{'client'}" "without BPF it is the client's own view"
is "$(json "sum(e['ops'].get('create', {}).get('count', 0) for e in d)" <"$T_DIR/top")" 1000 "which counts 1000 creates"
is "$(json "d[0]['why']" <"$T_DIR/top")" "BPF: off by option" "and says why it is not the kernel's"

looking a creates "$T_DIR/a" y
view=$(json "d[0]['view'] + ': ' + d[0].get('why', '')" <"$T_DIR/top")
if [ "$view" = "kernel: " ]; then
	is "$(json "sum(e['ops'].get('create', {}).get('count', 0) for e in d)" <"$T_DIR/top")" 1000 "the kernel's view counts 1000 creates"
	is "$(claudefs doctor --json | python3 -c "import json, sys; d = json.load(sys.stdin)
print([f['used'] for f in d['features'] if f['feature'] == 'bpf observing'])")" "[True]" "doctor says so, too"
	is "$(json "all(o['p50_us'] <= o['p90_us'] <= o['p99_us'] <= o['max_us'] and o['p50_us'] > 0 for e in d for o in e['ops'].values())" \
		<"$T_DIR/top")" True "latencies are in order"
	others() {
		for ((i = 0; i < 50; i++)); do echo >"$T_DIR/b/z$i"; done
		mkdir -p "$T_DIR/a/deep/er"
		for ((i = 0; i < 50; i++)); do echo x >>"$T_DIR/a/deep/er/hot"; done
	}
	looking a others
	is "$(json "sum(e['ops'].get('create', {}).get('count', 0) for e in d)" <"$T_DIR/top")" 1 "another mount's creates are not counted"
	like "$(json "[h['path'] for e in d for h in e['hot']]" <"$T_DIR/top")" "'(/deep/)?(er/)?hot'" "the hot file is named, with as much of its path as is cached"
	rm -f "$T_DIR/top"
	claudefs top "$T_DIR/a" >"$T_DIR/top" &
	top=$!
	wait_for 10 test -s "$T_DIR/top"
	claudefs top --once "$T_DIR/a" >"$T_DIR/top.once"
	like "$(cat "$T_DIR/top.once")" "kernel's view" "two at once"
	kill -KILL "$top"
	wait "$top" 2>/dev/null
	try "who is killed takes the programs with him" wait_for 10 detached
else
	like "$view" "^client: .+" "the kernel's view is not to be had, and the reason is given"
fi

claudefs trace --json "$T_DIR/a" >"$T_DIR/trace" 2>"$T_DIR/trace.err" &
pid=$!
wait_for 10 sh -c "stat '$T_DIR/a/warm' 2>/dev/null; test -s '$T_DIR/trace'"
mkdir "$T_DIR/a/dir"
mkdir "$T_DIR/a/dir" 2>/dev/null
ls "$T_DIR/a/absent" 2>/dev/null
wait_for 10 grep -q absent "$T_DIR/trace"
kill "$pid"
wait "$pid" 2>/dev/null
is "$(json "[(e['name'], e['error']) for e in d if e['op'] == 'mkdir']" <"$T_DIR/trace")" "[('dir', 0)]" "trace shows a mkdir, and its result"
like "$(json "[(e['inode'], e['latency_ns'] > 0) for e in d if e['op'] == 'lookup' and e.get('name') == 'absent']" <"$T_DIR/trace")" \
	'^.\(1, True\)' "and a name that is not there"
fails "trace of a path elsewhere" claudefs trace /tmp
fails "top of a path elsewhere" claudefs top --once /tmp
try "no program stays attached" wait_for 10 detached
cluster_end
done_testing
