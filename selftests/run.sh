#!/bin/bash
# run.sh [PATTERN]: runs every test case (whose name matches the regular expression PATTERN), prints one line
# a case, and last of all "N passed, N failed, N skipped". Exits 0 only if something passed and nothing failed.
#
# A case speaks TAP. Cases are
#   selftests/DIR/X.sh        any executable script (DIR is not lib): name DIR/X
#   selftests/unit/**/X.c     the cmocka program of the asan build:   name unit/.../X
#   selftests/sim/*.c         the simulator of the asan build:        name sim/sim
#   selftests/fuzz/X.c        FUZZ_SECONDS (5) of libFuzzer, with the seeds in selftests/fuzz/corpus/X
# Lines such as "# timeout: 900" in the first ten of a case's source change how it runs:
#   timeout: SECONDS (300)   parallel: yes (beside others)   variant: asan (which build's programs, release)
#   net: host (stay in the machine's network namespace)
#   tiers: yes (also runs once for each tier in T_TIERS, as NAME@TIER with T_TIER=TIER, see lib/cluster.sh; by default none,
#      with T_LONG=1 "plain uring passthrough"; the rest is for vm/tiers)
#
# Each case has session, mounts, process ids and network (127.0.0.1 only) to itself, and sees
#   $T_DIR   fresh directory, also the working directory; kept when the case failed, or with KEEP=1
#   $T_ISOLATED  empty where the machine allows no namespaces, and cases share its mounts and processes
#   $T_TOP   this checkout     $T_BIN   its programs (first in $PATH)     $T_PROGS   its selftests/progs
# T_LONG=1 lets cases do more than fits into a usual run, and gives each five times its time. T_SLOW=n: this machine is so many times
# slower than most; every limit of time is n times as long. T_ROOT: where the directories of cases go, instead of $B/test-run.
# It fails, too, when it leaves a FUSE mount, a process, a loop device or a pinned BPF object behind, when it dumps
# core, or when a sanitizer speaks. A case that leaves $T_DIR/again, one line that says which fault of the machine below it that is (an emulator's),
# is run once more, and the line is printed. JOBS (2) bounds how many run at once, B (build) says where the builds are.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C T_TOP=$PWD
B=${B:-build} JOBS=${JOBS:-2} FUZZ_SECONDS=${FUZZ_SECONDS:-5}
[[ $B = /* ]] || B=$PWD/$B
root=${T_ROOT:-$B/test-run} pattern=${1-}
mkdir -p "$root"
work=$(mktemp -d "$root/.run.XXXXXX")
declare -A running=()

stop_all() {
	local pid
	for pid in "${!running[@]}"; do kill -KILL -- "-$pid" 2>/dev/null; done # namespaces die with their unshare
	[ ${#isolate[@]} -gt 0 ] || grep -lzxF "T_RUN=$work" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 | xargs -r kill -KILL
	rm -rf "$work"
}
trap stop_all EXIT
trap 'exit 130' INT TERM HUP

isolate=(unshare -m -p -f --mount-proc --kill-child)
if ! "${isolate[@]}" true 2>/dev/null; then
	echo "# no namespaces here (not root?): cases share this machine's mounts and processes"
	isolate=()
fi
# Sanitizers of these compilers do not cope with address spaces randomized by more than 28 bits.
fixed=()
[ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -le 28 ] || ! setarch -R true 2>/dev/null || fixed=(setarch -R)

# ---- inside the namespaces, as their process 1 -------------------------------------------------------------
bpf_pins() { ls -A /sys/fs/bpf/claudefs 2>/dev/null; }
fuse_mounts() { awk '/ - fuse(\.|blk)?/ && !/ - fusectl/ {print $5}' /proc/self/mountinfo | sort; }
others() { # processes of this case other than ourselves, as "pid(name) ..."
	local p s out=
	for p in /proc/[0-9]*; do
		case ${p#/proc/} in "$$" | "$PPID") continue ;; esac # PPID: without namespaces, the outer timeout
		if [ -z "$T_ISOLATED" ]; then grep -qzxF "T_DIR=$T_DIR" "$p/environ" 2>/dev/null || continue; fi
		read -r s <"$p/stat" || continue
		s=${s#*(}
		[[ ${s##*) } = Z* ]] || out+="${p#/proc/}(${s%)*}) "
	done 2>/dev/null
	others=$out
}
inside() { # LIMIT WORK COMMAND...: runs it; WORK.rc and WORK.left say how it went
	local limit=$1 note=$2 rc left='' before pins i others=
	shift 2
	[ "$T_ISOLATED" != net ] || ip link set lo up
	[ -z "$T_ISOLATED" ] || mount -t bpf bpf /sys/fs/bpf 2>/dev/null # one of our own, where there is one at all
	before=$(fuse_mounts) pins=$(bpf_pins)
	cd "$T_DIR" || exit 1
	ulimit -c 1000000
	timeout -k 10 "$limit" "$@" </dev/null
	rc=$?
	for ((i = 0; i < 30 * ${T_SLOW:-1}; i++)); do # a daemon told to stop may take a moment
		others
		[ "$others" ] || break
		sleep 0.1
	done
	[ -z "$others" ] || left+=" processes $others"
	i=$(comm -13 <(echo "$before") <(fuse_mounts)) && [ -z "$i" ] || left+=" mounts $i"
	i=$(comm -13 <(echo "$pins") <(bpf_pins)) && [ -z "$i" ] || left+=" /sys/fs/bpf/claudefs/$i"
	if [ -z "$T_ISOLATED" ]; then # nobody else will clean up
		comm -13 <(echo "$before") <(fuse_mounts) | xargs -r umount -l
		for i in $others; do kill -KILL "${i%%(*}" 2>/dev/null; done
	fi
	printf '%s' "$left" >"$note.left"
	echo "$rc" >"$note.rc"
}
fuzz() { # PROGRAM SECONDS SEEDS: libFuzzer as a case of one test
	mkdir -p corpus
	echo 1..1
	local seeds=()
	[ ! -d "$3" ] || seeds=("$3")
	"$1" -max_total_time="$2" -timeout=20 -artifact_prefix="$PWD/" corpus "${seeds[@]}" 2>&1 || {
		echo "not ok 1 - $2 seconds of fuzzing"; return 1; }
	echo "ok 1 - $2 seconds of fuzzing"
}
export -f inside others fuse_mounts bpf_pins fuzz

# ---- one case -----------------------------------------------------------------------------------------------
tag() { sed -n "1,10s|^[#/* ]*$2: *\([^ ]*\).*|\1|p" "$1" | head -n 1; }

run_case() { # NAME SOURCE COMMAND...
	local name=$1 source=$2 note=$work/${1//\//_} limit variant again space=("${isolate[@]}") start=$EPOCHREALTIME
	shift 2
	limit=$(tag "$source" timeout)
	variant=$(tag "$source" variant)
	limit=$((${limit:-300} * (${T_LONG:-0} ? 5 : 1) * ${T_SLOW:-1}))
	export T_RUN=$work T_DIR=$root/$name T_BIN=$B/${variant:-release}/bin T_PROGS=$B/${variant:-release}/selftests/progs
	export PATH=$T_BIN:$PATH T_ISOLATED=${isolate[0]+pid} CMOCKA_MESSAGE_OUTPUT=TAP
	export ASAN_OPTIONS=log_path=$T_DIR/sanitizer UBSAN_OPTIONS=print_stacktrace=1:log_path=$T_DIR/sanitizer
	export TSAN_OPTIONS=log_path=$T_DIR/sanitizer
	if [ "$T_ISOLATED" ] && [ "$(tag "$source" net)" != host ] && command -v ip >/dev/null; then
		space+=(-n) T_ISOLATED=net
	fi
	mkdir -p "$root/${name%/*}"
	exec 8>"$root/$name.lock" # somebody else may be testing in this checkout
	flock 8
	for again in '' no; do
		rm -rf --one-file-system "$T_DIR" "$note.rc" "$note.left"
		mkdir -p "$T_DIR"
		"${fixed[@]}" timeout --foreground -s KILL $((limit + 60)) "${space[@]}" setsid bash -c 'inside "$@"; exit' \
			inside "$limit" "$note" "$@" </dev/null \
			>"$T_DIR/log" 2>&1 8>&-
		[ -z "$again" ] && [ -s "$T_DIR/again" ] || break
		echo "     $name once more: $(head -n 1 "$T_DIR/again")"
	done
	report "$name" "$note" "$limit" "$(awk "BEGIN {printf \"%.1f\", $EPOCHREALTIME - $start}")"
	flock -u 8
}

report() { # NAME NOTE LIMIT SECONDS: judges $T_DIR/log, prints, and leaves "passed failed skipped" in NOTE.sum
	local name=$1 note=$2 rc left passed failed skipped planned seen why='' f verdict=ok
	rc=$(cat "$note.rc" 2>/dev/null || echo stuck)
	left=$(cat "$note.left" 2>/dev/null)
	# cmocka 1.1 prints a skipped test as "not ok 3 # SKIP name".
	read -r passed failed skipped planned < <(awk '
		/^(not )?ok([ \t]|$)/ { if (/# *(SKIP|TODO)/) s++; else if (/^not/) n++; else o++ }
		/^1\.\.[0-9]+/ { plan += substr($1, 4); plans++; if (/^1\.\.0.*# *SKIP/) whole++ }
		END { print o+0, n+0, s+whole, plans ? plan+whole : "none" }' "$T_DIR/log")
	seen=$((passed + failed + skipped))
	if [ "$rc" = stuck ]; then why+="; had to be killed from outside"
	elif [ "$rc" = 124 ] || [ "$rc" = 137 ]; then why+="; took more than $3 s, or was killed"
	elif [ "$rc" != 0 ] && [ "$failed" = 0 ]; then why+="; exited with $rc"; fi
	if [ "$planned" = none ]; then why+="; printed no plan"
	elif [ "$planned" != "$seen" ]; then why+="; planned $planned tests, reported $seen"; fi
	[ -z "$left" ] || why+="; left behind:$left"
	for f in /sys/block/loop*/loop/backing_file; do
		[[ $(cat "$f" 2>/dev/null) = "$T_DIR"/* ]] || continue
		f=/dev/$(cut -d/ -f4 <<<"$f")
		why+="; left behind: $f"
		losetup -d "$f"
	done
	while read -r f; do # ELF, and of the type "core"
		[ "$(od -An -tx1 -N17 "$f" | tr -d ' \n' | sed 's/^\(.\{8\}\).*\(..\)$/\1\2/')" != 7f454c4604 ] || why+="; crashed: $f"
	done < <(find "$T_DIR" -xdev -type f \( -name core -o -name 'core.[0-9]*' \))
	f=$(find "$T_DIR" -xdev -type f \( -name '*log*' -o -name 'sanitizer.*' \) -size -64M -exec \
		grep -lE 'ERROR: [A-Za-z]*Sanitizer|WARNING: ThreadSanitizer|runtime error:' {} + | tr '\n' ' ')
	[ -z "$f" ] || why+="; sanitizer report in $f"
	[ -z "$why" ] || failed=$((failed + 1))
	[ "$failed" = 0 ] || verdict=FAIL
	{
		printf '%-4s %-40s %3d passed%s%s  %s s\n' "$verdict" "$name" "$passed" \
			"$([ "$failed" = 0 ] || echo ", $failed failed")" "$([ "$skipped" = 0 ] || echo ", $skipped skipped")" "$4"
		if [ "$verdict" = FAIL ]; then
			[ -z "$why" ] || echo "     why: ${why#; }"
			awk '/^not ok/ && !/# *SKIP/ {n++; after = 7} !/^(not ok|#)/ {after = 0} after-- > 0 && n <= 20' "$T_DIR/log" |
				cut -c1-300 | sed 's/^/     | /' # with what was said about each
			echo "     log: $T_DIR/log, its end:"
			tail -n 12 "$T_DIR/log" | cut -c1-300 | sed 's/^/     | /'
			for f in "$T_DIR"/sanitizer.*; do [ ! -e "$f" ] || head -n 40 "$f" | sed 's/^/     | /'; done
		fi
		sed -nE '/^(not )?ok.*# *(SKIP|TODO)|^1\.\.0.*# *SKIP/s/^/     /p' "$T_DIR/log"
	} >"$note.out"
	cat "$note.out"
	[ "$verdict" = FAIL ] || [ "${KEEP-}" ] || find "$T_DIR" -xdev -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
	echo "$passed $failed $skipped $name" >"$note.sum"
}

# ---- all of them ----------------------------------------------------------------------------------------------
matching=0
start() { # NAME SOURCE COMMAND...: run_case, alone or beside others
	[[ $1 =~ $pattern ]] || return 0
	matching=$((matching + 1))
	local most=1
	if [ "$(tag "$2" parallel)" = yes ] || [[ $2 = *.c ]]; then most=$JOBS; fi
	wait_below "$most"
	set -m # a process group of its own, for stop_all
	(trap - EXIT INT TERM HUP; run_case "$@") &
	set +m
	running[$!]=$1
	[ "$most" != 1 ] || wait_below 1
}
wait_below() {
	local done_pid
	while [ ${#running[@]} -ge "$1" ]; do
		wait -n -p done_pid "${!running[@]}"
		unset "running[$done_pid]"
	done
}

mapfile -t sources < <(find selftests/unit -name '*.c' 2>/dev/null | sort)
for f in "${sources[@]}"; do
	name=${f#selftests/}
	start "${name%.c}" "$f" "$B/asan/${f%.c}"
done
sim=$(find selftests/sim -name '*.c' 2>/dev/null | sort | head -n 1)
[ -z "$sim" ] || start sim/sim "$sim" "$B/asan/selftests/sim/sim"
for f in selftests/fuzz/*.c; do
	[ -e "$f" ] || continue
	name=$(basename "$f" .c)
	start "fuzz/$name" "$f" bash -c 'fuzz "$@"' fuzz "$B/fuzz/selftests/fuzz/$name" "$FUZZ_SECONDS" \
		"$T_TOP/selftests/fuzz/corpus/$name"
done
beside=() alone=()
for f in selftests/*/*.sh; do
	[[ -e $f && $f != selftests/lib/* ]] || continue
	if [ ! -x "$f" ] && ! head -c 2 "$f" | grep -q '^#!'; then continue; fi # a helper that others source
	if [ "$(tag "$f" parallel)" = yes ]; then beside+=("$f"); else alone+=("$f"); fi
done
for f in "${beside[@]}" "${alone[@]}"; do
	name=${f#selftests/}
	start "${name%.sh}" "$f" "$T_TOP/$f" # one that is not executable fails, and says so
	[ "$(tag "$f" tiers)" = yes ] || continue
	for tier in ${T_TIERS-${T_LONG:+plain uring passthrough}}; do
		T_TIER=$tier start "${name%.sh}@$tier" "$f" "$T_TOP/$f"
	done
done
wait_below 1

sums=$(cat "$work"/*.sum 2>/dev/null | awk '{p += $1; f += $2; s += $3} END {print p+0, f+0, s+0}')
read -r passed failed skipped <<<"$sums"
if [ "$(find "$work" -name '*.sum' | wc -l)" != "$matching" ]; then
	echo "some case came to no result"
	failed=$((failed + 1))
fi
if [ "$failed" != 0 ]; then
	awk '$2 {printf " %s", $4} END {print ""}' "$work"/*.sum 2>/dev/null | sed 's/^/failed:/'
fi
[ "$matching" != 0 ] || echo "no case's name matches '$pattern'"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
