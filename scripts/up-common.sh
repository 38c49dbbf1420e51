# up-common.sh: what up.sh and down.sh share: where things are, and whether they run.
# shellcheck shell=bash
PORT=${PORT:-9510}
UP=$(realpath -m "${UP:-build/up}")
MNT=$(realpath -ms "${MNT:-mnt}") # -s: look at no file below a mount that may hang
BIN=$(realpath -m "${BIN:-build/release/bin}")

die() { echo "${0##*/}: $*" >&2; exit 1; }
ours() { # PID PROGRAM: does this process run our PROGRAM? (a rebuilt one reads "... (deleted)")
	local exe
	exe=$(readlink "/proc/$1/exe" 2>/dev/null) && [ "${exe% (deleted)}" = "$BIN/$2" ]
}
server_pid() { # prints it; fails when our server does not run
	local pid
	read -r pid 2>/dev/null <"$UP/claudefsd.pid" && [[ $pid =~ ^[0-9]+$ ]] && ours "$pid" claudefsd && echo "$pid"
}
client_pids() { # the clients that serve $MNT
	local p
	for p in /proc/[0-9]*; do
		ours "${p#/proc/}" claudefs && grep -qzxF "$MNT" "$p/cmdline" 2>/dev/null && echo "${p#/proc/}"
	done
	return 0
}
mounted() { awk -v m="${MNT// /\\\\040}" '$5 == m && / - fuse/ {found = 1} END {exit !found}' /proc/self/mountinfo; }
gone() { # PIDS...
	local pid
	for pid; do
		if [ -e "/proc/$pid" ] && ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null; then return 1; fi
	done
}
wait_gone() { # SECONDS PIDS...
	local end=$((SECONDS + $1))
	shift
	until gone "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.05
	done
}
