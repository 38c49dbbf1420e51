#!/bin/bash
# sqlite3 with four writers: rollback journal on one mount and on two, WAL ten times; nothing is lost, integrity_check.
# timeout: 300
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
command -v sqlite3 >/dev/null || skip_all "no sqlite3"

cluster_start
cluster_mount a
cluster_mount b
sql() { sqlite3 -cmd '.timeout 60000' "$@"; }
writers() { # COUNT FILE... : one writer for each FILE, COUNT transactions each
	local n=$1 i=0 f pids=() rc=0
	shift
	for f; do
		(for ((k = 0; k < n; k++)); do echo "BEGIN IMMEDIATE; INSERT INTO t VALUES ($i, $k, randomblob(200)); UPDATE c SET n = n + 1; COMMIT;"; done |
			sql -bail "$f") &
		pids+=($!)
		i=$((i + 1))
	done
	for i in "${pids[@]}"; do wait "$i" || rc=1; done
	return $rc
}
run() { # WHAT MODE COUNT FILE...
	local what=$1 mode=$2 n=$3 out
	shift 3
	rm -f "$1"*
	is "$(sql "$1" "PRAGMA journal_mode=$mode; CREATE TABLE t(w, k, v); CREATE TABLE c(n); INSERT INTO c VALUES (0); CREATE INDEX i ON t(k, w);")" \
		"$mode" "$what: journal mode"
	if out=$(writers "$n" "$@" 2>&1); then ok "$what: $# writers"; else not_ok "$what: $# writers" "$out"; fi
	is "$(sql "$1" 'SELECT count(*), (SELECT n FROM c), count(DISTINCT w * 100000 + k) FROM t; PRAGMA integrity_check;' | tr '\n' ' ')" \
		"$(($# * n))|$(($# * n))|$(($# * n)) ok " "$what: all there, and intact"
}
run "rollback" delete 50 "$T_DIR"/a/db "$T_DIR"/a/db "$T_DIR"/a/db "$T_DIR"/a/db
run "truncate" truncate 50 "$T_DIR"/a/db "$T_DIR"/a/db "$T_DIR"/a/db "$T_DIR"/a/db
run "rollback on two mounts" delete 25 "$T_DIR"/a/db "$T_DIR"/b/db "$T_DIR"/a/db "$T_DIR"/b/db
for i in {1..10}; do
	run "WAL, run $i" wal 60 "$T_DIR"/b/wal "$T_DIR"/b/wal "$T_DIR"/b/wal "$T_DIR"/b/wal
done
try "VACUUM" sql "$T_DIR/b/wal" VACUUM
is "$(sql "$T_DIR/a/wal" 'PRAGMA integrity_check; SELECT count(*) FROM t')" "ok"$'\n'240 "the other mount reads it afterwards"
cluster_end
done_testing
