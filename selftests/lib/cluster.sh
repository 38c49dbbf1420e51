# cluster.sh: a server and mounts for one test case. Source it after tap.sh.
# shellcheck shell=bash
#
#   cluster_start [SIZE]        formats a sparse store (4G) and starts claudefsd; returns when it listens. T_TARGETS
#                               names devices to be used instead (WHAT THEY HOLD IS LOST)
#   cluster_mount NAME [OPTS]   mounts at $T_DIR/NAME, with a cache directory of its own
#   cluster_umount NAME         unmounts, and expects the client to end with status 0
#   cluster_stop                stops claudefsd, and expects status 0 (unmount first)
#   cluster_restart             starts claudefsd on the store that is there (after a stop or a kill)
#   cluster_kill9 server|NAME   SIGKILL to claudefsd or to the client of a mount
#   cluster_pid server|NAME     prints the process id
#   cluster_rss server|NAME     prints VmRSS in KiB; 0 with T_FS
#   cluster_fsck                claudefs fsck of the stopped server's store
#   cluster_end                 unmounts and stops all, and prints a result: everybody ended well and no
#                               assertion failed. Call it before done_testing.
#
# T_FS=DIR: nothing is started, and every "mount" is a bind mount of one directory below DIR. That proves the
# tests, not the product. `cluster_real || skip ...` where a test makes no sense there.
# T_TIER=plain|uring|passthrough|bpf|all: every mount answers in this tier and no other (all: in each of them); where the machine
# has not got it, the case is skipped with the reason. Unset: each mount takes what there is.
# T_MOUNT_OPTS is appended to the options of every mount. T_START_SECONDS (30): how long a server or mount may take to come up.
# Process ids are in $T_DIR/NAME.pid, logs in $T_DIR/{claudefsd,client-NAME}.log.

# shellcheck source=selftests/lib/uring.sh
. "$T_TOP/selftests/lib/uring.sh"

CLUSTER_ADDR=127.0.0.1:9510
cluster_mounts=() cluster_problems=()
shopt -s extglob

cluster_real() { [ -z "${T_FS-}" ]; }
cluster_problem() {
	cluster_problems+=("$*")
	diag "cluster: $*"
}
cluster_listening() { (exec 3<>"/dev/tcp/${CLUSTER_ADDR%:*}/${CLUSTER_ADDR#*:}") 2>/dev/null; }
cluster_mounted() { awk -v m="$1" '$5 == m {found = 1} END {exit !found}' /proc/self/mountinfo; }
cluster_pid() { cat "$T_DIR/$1.pid" 2>/dev/null; }
cluster_alive() {
	local pid
	pid=$(cluster_pid "$1") && ! tap_gone "$pid"
}
cluster_rss() {
	local pid
	if cluster_real && pid=$(cluster_pid "$1"); then awk '/^VmRSS/ {print $2}' "/proc/$pid/status"; else echo 0; fi
}
cluster_need() { # of this machine and checkout
	cluster_real || return 0
	[ -w /dev/fuse ] || skip_all "no /dev/fuse"
	[ -x "$T_BIN/claudefsd" ] || skip_all "no claudefsd in $T_BIN"
	cluster_tier_need
}

# ---- T_TIER ------------------------------------------------------------------------------------------------
cluster_tier_has() { [ "${T_TIER-}" = "$1" ] || [ "${T_TIER-}" = all ]; }
cluster_tier_opts() { # the mount options of T_TIER, followed by a comma
	local tier
	[ "${T_TIER-}" ] || return 0
	for tier in uring passthrough bpf; do
		printf '%s=%s,' $tier "$(cluster_tier_has $tier && echo on || echo off)"
	done
}
cluster_tier_need() { # skips the case where this machine has not got T_TIER
	local tier why
	case ${T_TIER-} in '' | plain) return ;; uring | passthrough | bpf | all) ;; *) skip_all "no tier is called '$T_TIER'" ;; esac
	! cluster_tier_has uring || uring_need
	for tier in passthrough bpf; do
		cluster_tier_has $tier || continue
		why=$("$T_BIN/claudefs" doctor --json | python3 -c "import json, sys
print(*[f['kernel'] or '?' for f in json.load(sys.stdin)['features'] if f['feature'] == 'tier $tier' and not f['used']])")
		[ -z "$why" ] || skip_all "no tier $tier on this machine: $why"
	done
}

cluster_start() {
	local target
	cluster_need
	cleanup cluster_cleanup
	if ! cluster_real; then
		cluster_base=$(mktemp -d "$T_FS/cluster.XXXXXX") && chmod 755 "$cluster_base" || exit 1
		return
	fi
	[ "$T_ISOLATED" != net ] || ip link set lo up
	! cluster_listening || { not_ok "port 9510 is free"; exit 1; }
	mkdir -p "$T_DIR/state"
	printf '[server]\nlisten = %s\nstate_dir = %s\n' "$CLUSTER_ADDR" "$T_DIR/state" >"$T_DIR/claudefsd.conf"
	if [ -z "${T_TARGETS-}" ]; then
		cluster_format "$T_DIR/store.img" --size "${1-4G}"
	else
		for target in $T_TARGETS; do cluster_format "$target" --force; done
	fi
	cluster_restart
}
cluster_format() { # PATH OPTION...: one more target of the server
	local path=$1 n cluster=()
	shift
	n=$(grep -c '^\[target' "$T_DIR/claudefsd.conf")
	[ "$n" = 0 ] || cluster=(--cluster "$cluster_uuid" --target-id "$n")
	if ! "$T_BIN/claudefs" format "$@" "${cluster[@]}" "$path" >"$T_DIR/format.log" 2>&1; then
		not_ok "format" "$(cat "$T_DIR/format.log")"
		exit 1
	fi
	cluster_uuid=$(sed -n 's/.* of cluster \([0-9a-f-]*\).*/\1/p' "$T_DIR/format.log")
	printf '\n[target.%s]\npath = %s\n' "$n" "$path" >>"$T_DIR/claudefsd.conf"
}

cluster_restart() {
	local pid start
	cluster_real || return 0
	start=$(stat -c %s "$T_DIR/claudefsd.log" 2>/dev/null || echo 0)
	"$T_BIN/claudefsd" --config "$T_DIR/claudefsd.conf" >>"$T_DIR/claudefsd.log" 2>&1 </dev/null &
	pid=$!
	echo "$pid" >"$T_DIR/server.pid"
	if ! wait_for "${T_START_SECONDS:-30}" cluster_up "$pid" "$start" || tap_gone "$pid"; then
		not_ok "claudefsd starts" "$(tail -n 5 "$T_DIR/claudefsd.log")"
		exit 1
	fi
}
# A connection proves nothing: a killed server's ring, and with it its listening socket, outlives the process a little.
cluster_up() { # PID START: this process said so in its log, from byte START on
	tap_gone "$1" || tail -c "+$(($2 + 1))" "$T_DIR/claudefsd.log" | grep -q ' serving on '
}

cluster_mount() { # NAME [OPTS]
	# the kernel's switch must be on while a mount asks for rings
	if cluster_real && cluster_tier_has uring; then uring_with Y cluster_mount_here "$@"; else cluster_mount_here "$@"; fi
}
cluster_mount_here() {
	local name=$1 pid dir=$T_DIR/$1 log=$T_DIR/client-$1.log start opts
	mkdir -p "$dir" "$T_DIR/cache-$name"
	if ! cluster_real; then
		mount --bind "$cluster_base" "$dir" || exit 1
		cluster_mounts+=("$name")
		return 0
	fi
	opts="$(cluster_tier_opts)cachedir=$T_DIR/cache-$name,cachesize=1G${2:+,$2}${T_MOUNT_OPTS:+,$T_MOUNT_OPTS}"
	start=$(stat -c %s "$log" 2>/dev/null || echo 0)
	"$T_BIN/claudefs" mount -f -o "$opts" "$CLUSTER_ADDR" "$dir" >>"$log" 2>&1 </dev/null &
	pid=$!
	echo "$pid" >"$T_DIR/$name.pid"
	cluster_mounts+=("$name")
	if ! wait_for "${T_START_SECONDS:-30}" cluster_mount_done "$log" "$start" "$pid" || ! cluster_mounted "$dir"; then
		not_ok "mount $name" "$(tail -n 5 "$log")"
		exit 1
	fi
	if ! timeout "$(slow 30)" stat "$dir" >/dev/null; then
		not_ok "mount $name answers" "$(tail -n 5 "$log")"
		exit 1
	fi
}
cluster_mount_done() { # LOG START PID: it said that all is up, the control socket too, from byte START on
	tap_gone "$3" || tail -c "+$(($2 + 1))" "$1" | grep -q ' is mounted at '
}

cluster_reap() { # NAME WANTED: collects the exit status of NAME's process, after it was told to end
	local name=$1 pid rc=0
	pid=$(cluster_pid "$name") || return 0
	if ! wait_for 60 tap_gone "$pid"; then
		cluster_problem "$name (pid $pid) did not end within 60 s"
		kill -KILL "$pid" 2>/dev/null
	fi
	wait "$pid" 2>/dev/null || rc=$?
	rm -f "$T_DIR/$name.pid"
	[ "$rc" = "$2" ] || cluster_problem "$name ended with status $rc, not $2"
}

cluster_forget() { # NAME is not mounted any more
	local i
	for i in "${!cluster_mounts[@]}"; do
		[ "${cluster_mounts[i]}" != "$1" ] || unset "cluster_mounts[$i]"
	done
}

cluster_umount() { # NAME
	local out
	if ! out=$(umount "$T_DIR/$1" 2>&1); then
		cluster_problem "$out"
		umount -l "$T_DIR/$1" 2>/dev/null
	fi
	cluster_forget "$1"
	! cluster_real || cluster_reap "$1" 0
}

cluster_stop() {
	local pid
	cluster_real || return 0
	pid=$(cluster_pid server) || return 0
	kill -TERM "$pid"
	cluster_reap server 0
}

cluster_kill9() { # server|NAME
	local pid
	cluster_real || return 0
	pid=$(cluster_pid "$1") || { cluster_problem "no process of $1 to kill"; return 1; }
	kill -KILL "$pid" || cluster_problem "$1 (pid $pid) had ended already"
	cluster_reap "$1" 137
	if [ "$1" != server ]; then
		umount -l "$T_DIR/$1"
		cluster_forget "$1"
	fi
}

# What killed clients left in the BPF file system: the next mount on this machine would remove it, but there may be none.
cluster_unpin() {
	[ -d /sys/fs/bpf/claudefs ] || return 0
	flock /sys/fs/bpf/claudefs sh -c 'for d in /sys/fs/bpf/claudefs/*/; do [ ! -d "$d" ] || flock -n "$d" rm -rf "$d"; done'
	return 0
}

cluster_fsck() { "$T_BIN/claudefs" fsck --config "$T_DIR/claudefsd.conf"; }

cluster_end() {
	local name text
	for name in "${cluster_mounts[@]}"; do cluster_umount "$name"; done
	cluster_stop
	text=$(grep -sh 'assertion failed' "$T_DIR/claudefsd.log" "$T_DIR"/client-*.log | head -n 3)
	[ -z "$text" ] || cluster_problem "$text"
	if [ ${#cluster_problems[@]} = 0 ]; then
		ok "server and clients ended well"
	else
		not_ok "server and clients ended well" "$(printf '%s\n' "${cluster_problems[@]}")"
	fi
}

cluster_cleanup() { # whatever is left when a case ends half way
	local name pid
	for name in "${cluster_mounts[@]}"; do
		pid=$(cluster_pid "$name") && kill -KILL "$pid" 2>/dev/null # its mount then fails instead of waiting
		umount -l "$T_DIR/$name" 2>/dev/null
	done
	pid=$(cluster_pid server) && stop_pid "$pid"
	cluster_unpin
	[ -z "${cluster_base-}" ] || rm -rf "$cluster_base"
	return 0
}

# What a program that speaks TAP prints becomes results of this script; its plan is dropped.
tap_from() { # COMMAND...: 1 if it failed
	local line last='' bad=$tap_failed
	while IFS= read -r line; do
		last=$line
		case $line in
		1..*) ;;
		"ok "*) tap_count=$((tap_count + 1)); echo "ok $tap_count${line##ok +([0-9])}" ;;
		"not ok "*) tap_count=$((tap_count + 1)) tap_failed=$((tap_failed + 1)); echo "not ok $tap_count${line##not ok +([0-9])}" ;;
		"#"*) echo "$line" ;;
		*) echo "# $line" ;;
		esac
	done < <("$@" 2>&1; echo "# exit $?")
	if [ "$tap_failed" = "$bad" ] && [ "$last" != "# exit 0" ]; then not_ok "${1##*/} ended well" "$last"; fi
	[ "$tap_failed" = "$bad" ]
}
