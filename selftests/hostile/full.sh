#!/bin/bash
# A full store: ENOSPC comes as an error of write or fsync and nothing hangs; reading and removing work; the space comes
# back; writing works again; nothing that was synced is damaged.
# timeout: 500
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "this would fill a real file system"
cluster_start 512M
cluster_mount a
fill() { # PREFIX SYNC: 8 MiB files until one fails; sets `filled` and `error`
	filled=0
	while [ "$filled" -lt 100 ]; do
		error=$(dd if="$T_DIR/random" of="$T_DIR/a/$1$filled" bs=1M "conv=$2" 2>&1) || return 0
		filled=$((filled + 1))
	done
	return 1
}
free() { stat -f -c %a "$T_DIR/a"; }
block() { stat -f -c %S "$T_DIR/a"; }
has_free() { [ $(($(free) * $(block) >> 20)) -ge "$1" ]; }

dd if=/dev/urandom of="$T_DIR/random" bs=1M count=8 2>/dev/null
sum=$(md5sum <"$T_DIR/random")
intact() { # PREFIX COUNT
	local i
	for ((i = 0; i < $2; i++)); do
		[ "$(md5sum <"$T_DIR/a/$1$i")" = "$sum" ] || { echo "$1$i is damaged"; return 1; }
	done
}
empty=$(free)
diag "free at first: $((empty * $(block) >> 20)) MiB"
echo small >"$T_DIR/a/small"
sync "$T_DIR/a/small"

if fill synced fsync; then ok "filling ends with an error"; else not_ok "filling ends with an error" "wrote $filled files of 8 MiB"; fi
diag "$filled files of 8 MiB fit"
like "$error" "No space left" "the error is ENOSPC"
[ "$filled" -ge 20 ] && ok "at least 160 MiB of 512 fit" || not_ok "at least 160 MiB of 512 fit" "$filled"
try "what was synced is intact" intact synced "$filled"
is "$(cat "$T_DIR/a/small")" small "small files are, too"
try "removing works on a full store" timeout 60 sh -c "cd '$T_DIR/a' && rm synced1 synced3 synced5 synced7 'synced$filled' && rm -f synced9"
if wait_for 120 has_free 32; then ok "space comes back"; else not_ok "space comes back" "$(df -m "$T_DIR/a")"; fi
try "and can be written again" timeout 60 dd if="$T_DIR/random" of="$T_DIR/a/again" bs=1M conv=fsync
try "which is intact" cmp "$T_DIR/random" "$T_DIR/a/again"

if fill unsynced notrunc; then
	ok "filling without fsync ends with an error"
else
	# all writes were taken into the cache: then fsync must tell
	error=$(sync -f "$T_DIR/a" 2>&1 && for f in "$T_DIR"/a/unsynced*; do sync "$f" 2>&1; done)
	[ "$error" ] && ok "filling without fsync ends with an error" || not_ok "filling without fsync ends with an error"
fi
like "$error" "No space left" "it is ENOSPC as well"
try "the client still answers" timeout 30 ls -l "$T_DIR/a"
try "many small files on a full store end in success or ENOSPC" timeout 120 bash -c '
	for i in {1..500}; do out=$( (echo "$i" >"$1/s$i") 2>&1) || [[ $out = *"No space left"* ]] || { echo "$out"; exit 1; }; done' - "$T_DIR/a"
try "all can be removed" timeout 120 sh -c "rm -f '$T_DIR'/a/unsynced* '$T_DIR'/a/s[0-9]* && cd '$T_DIR/a' && rm -f synced2 synced4 synced6"
if wait_for 120 has_free 40; then ok "space comes back again"; else not_ok "space comes back again" "$(df -m "$T_DIR/a")"; fi
try "the rest can be read" bash -c "cat '$T_DIR'/a/synced8 '$T_DIR'/a/again >/dev/null"
cluster_umount a
cluster_stop
cluster_restart
cluster_mount a
try "what remains is intact after a restart" bash -c "cmp '$T_DIR/random' '$T_DIR/a/synced8' && cmp '$T_DIR/random' '$T_DIR/a/again'"
rm -rf "$T_DIR"/a/*
cluster_umount a
cluster_stop
# What was written for files whose write then failed belongs to nobody: fsck collects it.
"$T_BIN/claudefs" fsck --repair --config "$T_DIR/claudefsd.conf" >"$T_DIR/fsck" 2>&1
[ $? -le 1 ] && ok "fsck --repair" || not_ok "fsck --repair" "$(cat "$T_DIR/fsck")"
diag "$(tail -n 3 "$T_DIR/fsck")"
cluster_restart
cluster_mount a
has_back() { [ "$(free)" -ge $((empty * 9 / 10)) ]; }
if wait_for 120 has_back; then ok "an emptied store is as free as at first"; else not_ok "an emptied store is as free as at first" "$empty blocks then, $(free) now"; fi

# More is written in all than the store holds. Dead data stays for a minute, so there may be waiting; df may lag.
rewrite() { timeout 60 dd if="$T_DIR/random" of="$T_DIR/a/over$1" bs=1M conv=fsync 2>"$T_DIR/dd" && cmp -s "$T_DIR/random" "$T_DIR/a/over$1"; }
for ((i = 0; i < 60; i++)); do
	rewrite $((i % 3)) || { sleep 2 && wait_for 100 has_free 24 && rewrite $((i % 3)); } || break
done
is "$i" 60 "480 MiB are written to three files: dead data is cleaned away" || diag "$(cat "$T_DIR/dd") $(df -m "$T_DIR/a")"
cluster_end
done_testing
