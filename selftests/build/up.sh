#!/bin/bash
# `make up` and `make down`: three lines, idempotent both ways, data survives, an occupied port is named.
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"

for source in server/main.c tools/claudefs/main.c client/mount.c; do
	[ -e "$T_TOP/$source" ] || skip_all "$source is not written yet"
done
[ -w /dev/fuse ] || skip_all "no /dev/fuse"

export UP=$T_DIR/up MNT=$T_DIR/mnt BIN=$T_BIN PORT=19510
up() { "$T_TOP/scripts/up.sh" 2>&1; }
down() { "$T_TOP/scripts/down.sh" 2>&1; }
cleanup down

is "$(down)" "was not up" "down before up does nothing"
out=$(up)
is "$(wc -l <<<"$out")" 3 "up prints three lines"
like "$out" "mounted at .*/mnt"$'\n'".*claudefs status 127.0.0.1:19510"$'\n'".*make down$" "where, how it is, how to stop" || exit
try "the mount takes a file" sh -c "echo kept >$MNT/file && sync -f $MNT/file"
like "$(up)" "^already up: mounted" "up again says that it is up"
like "$(PORT=19511 up)" "127.0.0.1:19510" "and on which port it is, whatever was asked for"
like "$(cd "$MNT" && down)" "cannot unmount .* used by: .*\(pid [0-9]+\)" "down names who holds the mount"
like "$(down)" "^down; the data stays" "down"
is "$(grep -c " $MNT " /proc/self/mountinfo) $(pgrep -c claudefs)" "0 0" "leaves neither mount nor process"
[ ! -e "$MNT" ] && ok "nor an empty directory" || not_ok "nor an empty directory"
is "$(down)" "was not up" "down again does nothing"
up >/dev/null
is "$(cat "$MNT/file")" kept "the file is there after down and up"
kill -KILL "$(cat "$UP/claudefsd.pid")"
sleep 0.2
like "$(up)" "^mounted at" "up brings back a server that was killed"
is "$(timeout 30 cat "$MNT/file")" kept "and the file with it"
like "$(UP=$T_DIR/other MNT=$T_DIR/other-mnt up)" "port 19510 is taken by claudefsd \(pid [0-9]+\)" "an occupied port is named"
is "$(UP=$T_DIR/other BIN=/nowhere up)" "up.sh: /nowhere/claudefsd is missing: run make first" "and so are missing programs"
done_testing
