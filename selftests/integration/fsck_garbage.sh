#!/bin/bash
# fsck finds thousands of objects that belong to no file, says so once, and --repair deletes them in bounded time, without
# touching what belongs to files.
# timeout: 400
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "this needs a store"
n=30000
fsck() { "$T_BIN/claudefs" fsck --config "$T_DIR/claudefsd.conf" "$@"; }
cluster_start 4G
cluster_mount a
for i in {1..20}; do head -c 100000 /dev/urandom >"$T_DIR/a/f$i"; done
sync "$T_DIR"/a/f*
sums=$(cd "$T_DIR/a" && md5sum f*)
cluster_umount a
cluster_stop
try "an untouched store is clean" fsck
try "$n objects of nobody" timeout 200 "$T_PROGS/garbage" $n "$T_DIR/store.img"
out=$(fsck) && rc=0 || rc=$?
is "$rc" 0 "garbage is no error"
is "$(grep -c "^note: $n objects .* belong to no file" <<<"$out")" 1 "it is told once"
start=$EPOCHREALTIME
out=$(fsck --repair 2>"$T_DIR/progress") && rc=0 || rc=$?
took=$(awk "BEGIN {printf \"%.1f\", $EPOCHREALTIME - $start}")
is "$rc" 1 "--repair mends it"
like "$out" "fixed: $n objects" "and says how many"
# one by one each deletion is a durable write: ten thousand a minute on a slow disk. Many to a record take seconds
awk "BEGIN {exit !($took < 120)}" && ok "$n objects are deleted in bounded time" || not_ok "$n objects are deleted in bounded time" "$took s"
diag "$took s; $(wc -l <"$T_DIR/progress") lines of progress"
try "then it is clean" fsck
is "$(fsck --json | grep -c '"unreferenced_objects": 0')" 1 "and nothing is left"
cluster_restart
cluster_mount a
is "$(cd "$T_DIR/a" && md5sum f*)" "$sums" "files are what they were"
cluster_end
done_testing
