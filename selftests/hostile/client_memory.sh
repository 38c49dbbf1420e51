#!/bin/bash
# A client's memory is bounded by cache_entries= and cachesize=, whatever it has seen: files are made, listed, read and
# left, many more than it may know; its memory after all of them is what it was
# after two fifths, when everything that is bounded had reached its bound.
# timeout: 600
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "this is about claudefs mount"
files=20000
# malloc keeps what it was given, in an arena a thread: few threads make figures that repeat
export MALLOC_ARENA_MAX=2
cluster_start 4G
cluster_mount a cache_entries=2000,cachesize=16M
some() { # FROM TO: made, listed, read
	local i d
	for ((i = $1; i < $2; i += 1000)); do
		d=$T_DIR/a/d$i
		mkdir "$d" && (cd "$d" && seq 1 1000 | split -l 1 -a 3 - f && ls -l >/dev/null && cat f* >/dev/null) || return 1
		head -c 20000 /dev/zero >"$d/larger" && cat "$d/larger" >/dev/null || return 1
	done
}
entries() { "$T_BIN/claudefs" status --json "$T_DIR/a" | grep -o '"\(cached_[a-z]*\|entries\)": *[0-9]*' | tr '\n' ' '; }
try "two fifths of the files" some 0 $((files * 2 / 5))
early=$(cluster_rss a)
diag "after $((files * 2 / 5)) files: $early KiB; $(entries)"
try "all of them" some $((files * 2 / 5)) $files
# what waits to be written back, 5 s at most, counts only as long as it waits
sleep 6
all=$(cluster_rss a)
diag "after $files files: $all KiB; $(entries)"
[ "$all" -le $((early + 2000)) ] && ok "its memory has not grown" || not_ok "its memory has not grown" "$early KiB, then $all KiB"
try "each file is found all the same" bash -c "[ \$(find '$T_DIR/a' -type f | wc -l) = $((files + files / 1000)) ]"
found=$(cluster_rss a)
diag "after find: $found KiB"
[ "$found" -le $((early + 2000)) ] && ok "nor by finding them" || not_ok "nor by finding them" "$early KiB, then $found KiB"
cluster_end
done_testing
