#!/bin/bash
# PostgreSQL with checksums and fsync: initdb, pgbench with four clients, immediate stop, recovery, the sums agree,
# pg_checksums.
# timeout: 240
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
command -v setpriv >/dev/null || skip_all "no setpriv"

bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$bin/initdb" ] || skip_all "no PostgreSQL in /usr/lib/postgresql"
id postgres >/dev/null 2>&1 || skip_all "no user postgres"
cluster_start
cluster_mount a
socket=$(mktemp -d /tmp/cfs-pg.XXXXXX)
cleanup rm -rf "$socket"
mkdir "$T_DIR/a/pg"
chown postgres:postgres "$T_DIR/a/pg" "$socket"
chmod 700 "$T_DIR/a/pg"
pg() { (cd / && setpriv --reuid postgres --regid postgres --init-groups env PGHOST="$socket" "$@"); }
data=$T_DIR/a/pg/data
pg test -x "$T_DIR/a/pg" || skip_all "user postgres cannot reach $T_DIR"
up() { pg "$bin/pg_ctl" -D "$data" -w -t 60 -l "$socket/server" -o "-k $socket -c listen_addresses= -c shared_buffers=32MB" start; }
down() { pg "$bin/pg_ctl" -D "$data" -w -t 60 -m "$1" stop; }

end_postgres() { [ ! -e "$data/postmaster.pid" ] || down immediate; }

try "initdb" pg "$bin/initdb" -D "$data" -k -A trust --no-locale -E UTF8
try "start" up || exit
cleanup end_postgres
try "pgbench -i" pg "$bin/pgbench" -i -q -s 5 postgres
out=$(pg "$bin/pgbench" -n -c 4 -j 2 -T 12 postgres 2>&1) && ok "pgbench -c 4" || not_ok "pgbench -c 4" "$out"
diag "$(grep -E 'tps|latency average' <<<"$out")"
pg "$bin/pgbench" -n -c 4 -j 2 -T 20 postgres >"$socket/second" 2>&1 &
bench=$!
sleep 4
try "immediate stop under load" down immediate
wait "$bench"
try "start with recovery" up || diag "$(tail -n 20 "$socket/server")"
like "$(cat "$socket/server")" "redo (starts|done)" "it did recover"
is "$(pg psql -Atc 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
	(SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches),
	(SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)' postgres)" "t|t|t" "the sums agree"
try "VACUUM FULL" pg psql -qc 'VACUUM FULL pgbench_accounts' postgres
try "amcheck" pg "$bin/pg_amcheck" --install-missing -j 2 postgres
try "fast stop" down fast
try "checksums of every page" pg "$bin/pg_checksums" --check -D "$data"
is "$(grep -cE 'PANIC|could not (write|fsync|read)' "$socket/server")" 0 "no complaints in the log" || diag "$(grep -E 'PANIC|could not' "$socket/server")"
cluster_end
done_testing
