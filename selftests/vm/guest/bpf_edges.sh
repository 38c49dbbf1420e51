#!/bin/bash
# bpf_edges.sh MODULE: runs in the guest: the bpf tier at its edges: maps that are full, directories that a full map forgot, epochs at
# the end of their numbers, callers that fork, descriptors that a child of the daemon would inherit, the module loaded and
# unloaded around daemons that are killed under load. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && mkdir /mnt/t && cd /mnt/t || exit 1
export T_DIR=/mnt/t T_ISOLATED='' T_SLOW=6
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm_bpf.sh
. "$T_TOP/selftests/lib/vm_bpf.sh"
module=$1
PATH=$PATH:/usr/sbin:/sbin
NAMES=450 DIRS=100	# maps of 128 KiB have room for 320 names and 64 directories

insmod "$module" || { not_ok "the module loads"; exit 1; }
cluster_start
cluster_mount w bpf=off
mkdir w/d w/many
eval "mkfifo w/d/p{1..$NAMES}"
eval "mkdir w/many/{1..$DIRS}"
eval "mkfifo w/many/{1..$DIRS}/p"
cluster_umount w
cluster_mount a bpf=on,bpf_mem=128K
cluster_mount b bpf=off
mkdir other cache-other
like "$(unshare -T --boottime 1000 "$T_BIN/claudefs" mount -o "bpf=on,cachedir=$T_DIR/cache-other" "$CLUSTER_ADDR" "$T_DIR/other" 2>&1)" \
	"this is a time namespace" "with another boot-time clock than the kernel's bpf=on is refused"
wait_for 20 state a
like "$(tier a)" '"state":"on"' "the program is attached"
value() { tier a | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
dirs_in_map() { cat /sys/fs/bpf/claudefs/*-a/dirs | grep -c ' valid '; }
names_in_map() { cat /sys/fs/bpf/claudefs/*-a/names | grep -c ' valid '; }

# ---- full
what() { stat -c '%n %i %F %a %h %u %g %Y' "$@"; }
eval "what b/d/p{1..$NAMES}" | sed 's/^b/x/' >all.b
for round in 1 2; do
	cold
	eval "what a/d/p{1..$NAMES}" | sed 's/^a/x/' >all.a
	try "more names than a map holds, round $round: all are right" cmp all.a all.b
done
n=$(names_in_map)
[ "$n" -gt 60 ] && [ "$n" -lt "$NAMES" ] && ok "the map is full, and no fuller" || not_ok "the map is full, and no fuller" "$n names"
is "$(value failed)" 0 "nobody was refused: what was not used lately made room"
cold
stat a/d/p{1..20} >/dev/null
try "what is asked for again is answered again" wait_for 20 is_quiet a stat a/d/p{1..20}
rm b/d/p5
absent a/d/p5 && ok "what another mount removes is gone, from a full map, too" || not_ok "what another mount removes is gone, from a full map, too"

eval "stat a/many/{1..$DIRS}/p" >/dev/null
n=$(dirs_in_map)
[ "$n" -lt "$DIRS" ] && ok "more directories than a map holds: some are forgotten" || not_ok "more directories than a map holds: some are forgotten" "$n"
known() { # INODE...: all of these directories stand in the map
	local ino
	for ino; do cat /sys/fs/bpf/claudefs/*-a/dirs | grep -q "^$ino .* valid " || return 1; done
}
warm() { # DIRECTORY NAME...: asks until names in it, and itself, are answered from the map
	local dir=$1
	shift
	again() {
		cold
		(cd "$dir" && stat "$@" ./{no,nor,none}) >/dev/null 2>&1
		known "$(stat -c %i a)" "$(stat -c %i "$dir/..")" "$(stat -c %i "$dir")"
	}
	wait_for 60 again "$@"
}
forgotten=''
cat /sys/fs/bpf/claudefs/*-a/dirs >dirs.a
for ((i = 1; i <= DIRS; i++)); do
	grep -q "^$(stat -c %i "b/many/$i") .* valid " dirs.a || { forgotten=$i; break; }
done
if [ "$forgotten" ]; then
	try "one that is asked for again comes back" warm "a/many/$forgotten" p
	try "and is answered from" wait_for 30 is_quiet a stat "a/many/$forgotten/p"
else
	not_ok "one that is asked for again comes back" "none was forgotten"$'\n'"$(cat dirs.a)"
fi
eval "stat a/many/{1..$DIRS}/p" | grep -c fifo >count
is "$(cat count)" "$DIRS" "and all are right"

# ---- epochs: 64 bits that count up; where they end, nothing may be answered any more
ctl=$(echo /sys/fs/bpf/claudefs/*-a/maps/ctl)
floor() { # BYTES: the floor, and all else as it is
	# shellcheck disable=SC2046,SC2086 # bytes
	bpftool map update pinned "$ctl" key 0 0 0 0 value hex $(bpftool -j map dump pinned "$ctl" |
		python3 -c "import json, sys
v = [int(x, 16) for x in json.load(sys.stdin)[0]['value']]
v[8:16] = bytes.fromhex('$1')
print(*('%02x' % x for x in v))")
}
warm a/d p{1..9}
floor ffffffffffffffff
before=$(hits a)
cold
is "$(stat -c %F a/d/p{1..4} | sort -u)" fifo "all epochs used up: the daemon answers"
is "$(hits a)" "$before" "and the program does not"
floor 0000000000000000
try "with epochs again, it does" wait_for 60 is_quiet a stat a/d/p{1..4}

# ---- fork
links=$(grep -lE '^link_type' /proc/"$(cluster_pid a)"/fdinfo/*)
[ "$links" ] && ok "the daemon holds its link" || not_ok "the daemon holds its link"
leaky=''
for f in $links; do (($(sed -n 's/^flags:[ \t]*//p' "$f") & 02000000)) || leaky+=" $f"; done
is "$leaky" '' "no program that it starts inherits it, which would keep the program attached beyond it"
forks() { # many processes ask at once, and end
	local i pids=()
	for i in 1 2 3 4 5 6; do (for _ in 1 2 3 4 5; do stat a/d/p{10..60} || exit 1; done >/dev/null 2>&1) & pids+=($!); done
	for i in "${pids[@]}"; do wait "$i" || return 1; done
}
try "callers that fork are answered, all of them" wait_for 90 is_quiet a forks

# ---- the module, around daemons that end
(while :; do stat a/d/p1{0..9} c/d/p1{0..9}; done >/dev/null 2>&1) &
looker=$!
cleanup stop_pid "$looker" 1
cluster_umount a
bad=''
for round in 1 2 3 4; do
	cluster_mount c bpf=on
	wait_for 20 state c
	stat c/d/p{1..9} >/dev/null 2>&1
	! rmmod claudefs_fuse 2>/dev/null || bad+=" round $round: rmmod while attached;"
	if [ $((round % 2)) = 0 ]; then cluster_umount c; else cluster_kill9 c; fi
	wait_for 30 rmmod claudefs_fuse || bad+=" round $round: cannot be unloaded;"
	insmod "$module" || bad+=" round $round: cannot be loaded again;"
done
is "$bad" '' "the module goes with its last user, and comes back, while somebody asks all the time"
kill "$looker"
wait "$looker" 2>/dev/null
cluster_mount c bpf=on
wait_for 20 state c
stat c/d/p{1..9} >/dev/null 2>&1
quiet c "and the next mount is answered" stat c/d/p{6..9}
cluster_end
wait_for 30 rmmod claudefs_fuse && ok "rmmod when all have ended" || not_ok "rmmod when all have ended"
cluster_unpin
is "$(ls /sys/fs/bpf/claudefs 2>/dev/null | wc -l)" 0 "nothing stays pinned"
kernel_well
done_testing
