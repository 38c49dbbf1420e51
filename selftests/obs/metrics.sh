#!/bin/bash
# Metrics: server and mount serve well-formed Prometheus text on the loopback interface only, whose counters follow known work; other requests
# are refused; a collector that says nothing does not keep others waiting for long; a port that is taken fails the start with one
# line; the server answers while it is busy, and stops while it is asked.
# timeout: 120
. "$T_TOP/selftests/lib/tap.sh"
. "$T_TOP/selftests/lib/cluster.sh"

cat >"$T_DIR/scrape" <<'EOF2'
import re, sys, urllib.request
# scrape PORT METRIC [LABELS-REGEX]: prints the sum of its samples, after a check of the whole page
page = urllib.request.urlopen(f'http://127.0.0.1:{sys.argv[1]}/metrics', timeout=10).read().decode()
types, seen, total, found = {}, set(), 0, False
for line in page.splitlines():
	m = re.fullmatch(r'# TYPE (claudefs_[a-z0-9_]+) (counter|gauge|histogram)', line)
	if m:
		assert m[1] not in types, f'{m[1]} twice'
		types[m[1]] = m[2]
	if line.startswith('#'):
		continue
	m = re.fullmatch(r'(claudefs_[a-z0-9_]+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})? ([0-9.e+-]+)', line)
	assert m, f'not a sample: {line}'
	base = m[1] if m[1] in types else re.sub('_(bucket|sum|count)$', '', m[1])
	assert base in types, f'{line}: no TYPE before it'
	assert types[base] != 'counter' or m[1].endswith('_total'), f'{line}: a counter ends in _total'
	assert (m[1], m[2]) not in seen, f'{line}: twice'
	seen.add((m[1], m[2]))
	if m[1] == sys.argv[2] and (len(sys.argv) < 4 or re.search(sys.argv[3], m[2] or '')):
		total += float(m[3])
		found = True
assert page.endswith('\n')
print(f'{total:.15g}' if found else 'none')
EOF2
scrape() { python3 "$T_DIR/scrape" "$@" 2>&1 | tail -n 1; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
code() { python3 -c "
import http.client, sys
c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10)
c.request(sys.argv[2], sys.argv[3])
print(c.getresponse().status)" "$@"; }

cluster_start
cluster_stop
sport=$(free_port)
sed -i "/^\[server\]/a metrics_port = $sport" "$T_DIR/claudefsd.conf"
cluster_restart
cport=$(free_port)
cluster_mount a "metrics=$cport"
wait_for 10 code "$cport" GET /metrics
is "$(scrape "$sport" claudefs_server_serving)" 1 "the server serves its metrics"
is "$(scrape "$cport" claudefs_session_live "mount=\"$T_DIR/a\"")" 1 "the mount serves its own, with its mount point"
creates=$(scrape "$cport" claudefs_fuse_request_duration_seconds_count '"create"')
inodes=$(scrape "$sport" claudefs_meta_inodes)
writes=$(scrape "$sport" claudefs_raft_journal_writes_total)
is "$creates" none "no create yet"
for ((i = 0; i < 100; i++)); do echo >"$T_DIR/a/f$i"; done
is "$(scrape "$cport" claudefs_fuse_request_duration_seconds_count '"create"')" 100 "100 creates are counted by the mount"
is "$(scrape "$cport" claudefs_fuse_request_duration_seconds_bucket '"create",le="\+Inf"')" 100 "and all are in its histogram"
is "$(($(scrape "$sport" claudefs_meta_inodes) - inodes))" 100 "and by the server"
if [ "$(scrape "$sport" claudefs_raft_journal_writes_total)" -gt "$writes" ]; then ok "journal writes grew"; else not_ok "journal writes grew"; fi
is "$(scrape "$sport" claudefs_server_request_duration_seconds_count '"mknode"')" 100 "the server has timed each"
is "$(scrape "$sport" claudefs_server_request_duration_seconds_bucket '"mknode",le="\+Inf"')" 100 "in its histogram"
json() { python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
is "$("$T_BIN/claudefs" status --json "$CLUSTER_ADDR" | json "(d['ops']['mknode']['count'], d['ops']['mknode']['errors'],
	0 < d['ops']['mknode']['p50_us'] <= d['ops']['mknode']['p90_us'] <= d['ops']['mknode']['p99_us'], sum(n for b, n in d['ops']['mknode']['latency']))")" \
	"(100, 0, True, 100)" "status shows how long they took"
"$T_BIN/claudefs" top --json --interval 0.5 "$CLUSTER_ADDR" >"$T_DIR/top" 2>&1 &
top=$!
wait_for 10 test -s "$T_DIR/top"
for ((i = 0; i < 50; i++)); do mkdir "$T_DIR/a/d$i"; done
lines=$(wc -l <"$T_DIR/top")
wait_for 20 sh -c "[ \$(wc -l <'$T_DIR/top') -ge $((lines + 2)) ]"
kill "$top"
wait "$top" 2>/dev/null
is "$(grep '}$' "$T_DIR/top" | python3 -c "import json, sys
d = [json.loads(l) for l in sys.stdin]
print(sum(e['ops'].get('mknode', {}).get('count', 0) for e in d), d[0]['sessions'], d[0]['state'])")" "50 1 serving" "top shows a server's operations"
like "$("$T_BIN/claudefs" top --once "$CLUSTER_ADDR")" "server 127.0.0.1:9510  serving, leader" "and for people"
like "$("$T_BIN/claudefs" top --once 127.0.0.1:1 2>&1)" "is claudefsd running" "nobody there: one line"
mkdir "$T_DIR/a/f1" 2>/dev/null
stat "$T_DIR/a/absent" 2>/dev/null
rmdir "$T_DIR/a" 2>/dev/null
is "$(scrape "$cport" claudefs_fuse_request_errors_total '"create"')" 0 "no create failed"
for port in "$sport" "$cport"; do
	is "$(code "$port" GET /elsewhere) $(code "$port" POST /metrics)" "404 405" "other requests are refused"
	exec 5<>"/dev/tcp/127.0.0.1/$port" # says nothing
	is "$(code "$port" GET /)" 200 "one that says nothing does not block it"
	exec 5>&-
	like "$(ss -Hltn "sport = :$port")" "127\.0\.0\.1:$port " "it listens on loopback"
done
mkdir -p "$T_DIR/taken" "$T_DIR/cache-taken"
out=$("$T_BIN/claudefs" mount -o "metrics=$cport,cachedir=$T_DIR/cache-taken" "$CLUSTER_ADDR" "$T_DIR/taken" 2>&1)
is "$? $out" "32 claudefs: option 'metrics=$cport': Address already in use" "a port that is taken fails the mount"
if cluster_mounted "$T_DIR/taken"; then not_ok "and leaves none"; else ok "and leaves none"; fi
out=$("$T_BIN/claudefs" mount -o "metrics=0" "$CLUSTER_ADDR" "$T_DIR/taken" 2>&1)
like "$out" "metrics=0" "port 0 is refused"
cluster_umount a
(for ((i = 0; i < 10; i++)); do code "$sport" GET /metrics; done) >/dev/null 2>&1 &
asker=$!
cluster_stop
wait "$asker"
cluster_end
done_testing
