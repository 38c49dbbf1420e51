#!/bin/bash
# down.sh (`make down`): unmounts what up.sh mounted and stops its server; the data in build/up stays.
# A no-op when nothing is up. Takes the same variables as up.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/up-common.sh

users_of_mount() { # "name (pid N) ..." of who has a file or directory open below it
	local l p
	for l in /proc/[0-9]*/cwd /proc/[0-9]*/fd/*; do
		case $(readlink "$l" 2>/dev/null) in "$MNT" | "$MNT"/*) ;; *) continue ;; esac
		p=${l#/proc/}
		echo "$(cat "/proc/${p%%/*}/comm" 2>/dev/null) (pid ${p%%/*})"
	done | sort -u | tr '\n' ' '
}

did=
if mounted; then
	mapfile -t clients < <(client_pids)
	if ! error=$(timeout 60 umount "$MNT" 2>&1) && ! timeout 60 fusermount3 -u "$MNT" 2>/dev/null; then
		die "cannot unmount $MNT: $error; used by: $(users_of_mount)"
	fi
	# The client may still have data to write: the server must outlive it.
	wait_gone 60 "${clients[@]}" || die "the client (pid ${clients[*]}) has not ended 60 s after the unmount"
	did=1
fi
if server=$(server_pid); then
	kill -TERM "$server"
	wait_gone 60 "$server" || die "claudefsd (pid $server) has not ended 60 s after SIGTERM, see $UP/claudefsd.log"
	rm -f "$UP/claudefsd.pid" "$UP/port"
	did=1
fi
if [ -d "$MNT" ]; then rmdir "$MNT" 2>/dev/null || echo "down.sh: $MNT is not empty and stays" >&2; fi
if [ "$did" ]; then echo "down; the data stays in ${UP#"$PWD/"}"; else echo "was not up"; fi
