#!/bin/bash
# up.sh (`make up`): one server with one store in a sparse file, mounted at ./mnt; says in three lines where.
# Formats the store the first time only, so data survives `make down`. A no-op when all is up.
# PORT=9510, UP=build/up (store, configuration, logs), MNT=mnt and BIN=build/release/bin can be set.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/up-common.sh

holder_of_port() { # "name (pid N)" of who listens there
	local inode fd
	inode=$(awk -v p="$(printf ':%04X' "$PORT")" '$4 == "0A" && substr($2, length($2) - 4) == p {print $10; exit}' \
		/proc/net/tcp /proc/net/tcp6 2>/dev/null)
	for fd in /proc/[0-9]*/fd/*; do
		if [ "$(readlink "$fd" 2>/dev/null)" = "socket:[${inode:-none}]" ]; then
			fd=${fd#/proc/}
			echo "$(cat "/proc/${fd%%/*}/comm") (pid ${fd%%/*})"
			return
		fi
	done
	echo "a process of another user"
}
listening() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

for program in claudefsd claudefs; do
	[ -x "$BIN/$program" ] || die "$BIN/$program is missing: run make first"
done
mkdir -p "$UP/state" "$UP/cache"
store=$UP/store.img

if server=$(server_pid); then
	PORT=$(cat "$UP/port" 2>/dev/null || echo "$PORT")
else
	for ((i = 0; i < 50; i++)); do # a killed server's ring lets go of its socket a little later
		listening || break
		sleep 0.1
	done
	! listening || die "port $PORT is taken by $(holder_of_port): stop that, or use make up PORT=..."
	if [ ! -e "$store" ]; then # an interrupted format leaves store.img.new only
		rm -f "$store.new"
		"$BIN/claudefs" format --size 8G --yes "$store.new" >"$UP/format.log" 2>&1 ||
			die "cannot format $store: $(tail -n 1 "$UP/format.log")"
		mv "$store.new" "$store"
	fi
	cat >"$UP/claudefsd.conf" <<-END
		[server]
		listen = 127.0.0.1:$PORT
		state_dir = $UP/state
		pid_file = $UP/claudefsd.pid
		log_file = $UP/claudefsd.log

		[target.0]
		path = $store
	END
	echo "$PORT" >"$UP/port"
	timeout 60 "$BIN/claudefsd" --config "$UP/claudefsd.conf" --daemon >"$UP/start.log" 2>&1 </dev/null ||
		die "claudefsd did not start: $(tail -qn 1 "$UP/start.log" "$UP/claudefsd.log" 2>/dev/null | grep . | tail -n 1)"
fi

already=
if mounted && ! timeout 10 stat -f "$MNT" >/dev/null 2>&1; then # its client is dead
	umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT"
fi
if mounted; then
	[ -z "$server" ] || already="already up: "
else
	mkdir -p "$MNT"
	timeout 60 "$BIN/claudefs" mount "127.0.0.1:$PORT" "$MNT" -o "cachedir=$UP/cache,cachesize=1G" \
		>"$UP/mount.log" 2>&1 </dev/null || die "cannot mount $MNT: $(tail -n 1 "$UP/mount.log")"
	mounted || die "claudefs mount succeeded, but nothing is mounted at $MNT"
fi
address=
[ "$PORT" = 9510 ] || address=" 127.0.0.1:$PORT"
echo "${already}mounted at ${MNT#"$PWD/"}"
echo "state:      ${BIN#"$PWD/"}/claudefs status$address"
echo "stop:       make down"
