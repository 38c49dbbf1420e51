#!/bin/bash
# zns.sh: runs in the guest, in two lives of it: a server on a zoned drive is filled, emptied and filled again, cleans under
# load, and is cut off with the machine; then it is checked. Speaks TAP.
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules nvme fuse ext4 && mkdir -p /tmp/t /mnt && cd /tmp/t || exit 1
export T_DIR=/tmp/t T_ISOLATED='' T_START_SECONDS=120 T_TARGETS=nvme:serial.zns.1
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
guest_drive zns >/dev/null && guest_drive small >/dev/null || exit 1
journal=/share/journal

stat_of() { # KEY: a number of the target's, from the server
	"$T_BIN/claudefs" status --json 127.0.0.1:9510 | sed -n "s/.*\"$1\": \([0-9.]*\).*/\1/p" | head -n 1
}

if [ -e /share/second ]; then # ---- the second life
	mkdir -p "$T_DIR/state"
	cp /share/claudefsd.conf "$T_DIR/"
	try "after the machine stopped dead: fsck finds nothing wrong" cluster_fsck
	cleanup cluster_cleanup
	cluster_restart
	cluster_mount a
	tap_from "$T_PROGS/ackload" check --journal $journal --dir "$T_DIR/a/load"
	try "it takes new files" dd if=/dev/urandom of="$T_DIR/a/new" bs=1M count=8 conv=fsync status=none
	cluster_end
	try "fsck finds nothing wrong afterwards" cluster_fsck
	done_testing
	exit
fi

like "$("$T_BIN/claudefs" format nvme:serial.small.1 2>&1)" 'zones of 7168 KiB: files need zones of 8 MiB or more' \
	"format refuses zones in which files do not fit"
cluster_start
cluster_mount a
stay=$T_DIR/a/stay
mkdir "$stay"
# files that stay, spread over zones: cleaning has to move them again and again
head -c 8M /dev/urandom >some
put() { # FILE: $size MiB, in the place of what it had; fails with a message
	dd if=some of="$1" bs=1M count=$size conv=fsync,notrunc status=none
}
for i in {1..12}; do head -c 700k /dev/urandom >"$stay/$i"; done
(cd "$stay" && sync . && sha256sum ./*) >sums
size=8 first=0 rounds=${T_ROUNDS:-$(long 2 11)}
fill() { # NAME: files of $size MiB until there is no room; n: how many
	n=0
	wait_for 90 put "$T_DIR/a/fill/${1}0" # what was deleted is given back in the background
	while put "$T_DIR/a/fill/$1$n" 2>dd.err; do
		n=$((n + 1))
		[ $n -lt 64 ] || break
	done
	rm -f "$T_DIR/a/fill/$1$n" # what there is of the last one
	grep -q 'No space left on device' dd.err
}
# what was deleted is given back in the background: objects first, then, when somebody asks for room, zones
all_given_back() { [ "$(stat_of dead_objects)" = 0 ]; }
give_back() {
	sync "$T_DIR/a"
	sleep 1
	wait_for 120 all_given_back || diag "after 120 s there are $(stat_of dead_objects) dead objects"
}
moved() { [ "$(stat_of moved_bytes)" -gt "$before" ]; }
mkdir "$T_DIR/a/fill"
for ((round = 1; round <= rounds; round++)); do
	if fill a; then ok "round $round: filled to the last zone"; else
		not_ok "round $round: filled to the last zone" "$(cat dd.err)"; fi
	diag "round $round: $n files, $(stat_of live_bytes) bytes alive, $(stat_of dead_bytes) dead, $(stat_of segments_free) zones free," \
		"$(stat_of active) active"
	# What fits does not get less from round to round: no zone is lost. But cleaning, which has not moved anything when the first round
	# ends, has a zone open for what it moves once and one for what it moves again, each filled in part; and a file takes a zone.
	[ $first != 0 ] || first=$n
	if [ $n -ge $((first - 2)) ]; then ok "round $round: $n files of 8 MiB fit, $first the first time"; else
		not_ok "round $round: only $n files of 8 MiB fit, $first the first time"; fi
	[ $round -lt $rounds ] || break
	rm "$T_DIR"/a/fill/a*[02468] # every other file: whole zones, and such as must be cleaned before, as they fell
	gone=$(((n + 1) / 2))
	give_back
	fill b
	if [ $n -ge $((gone - 2)) ]; then ok "round $round: $n files took the place of $gone"; else
		not_ok "round $round: only $n files took the place of $gone" "$(cat dd.err)"; fi
	try "round $round: all of it is readable" sh -c "cat '$T_DIR'/a/fill/* >/dev/null"
	rm "$T_DIR"/a/fill/*
	give_back
done
is "$(cd "$stay" && sha256sum --quiet -c /tmp/t/sums 2>&1)" "" "what stayed is whole after $rounds rounds"
rm "$T_DIR"/a/fill/*
give_back
diag "write amplification $(stat_of write_amplification), $(stat_of resets) zones reset, at most $(stat_of active_max) active"

# ---- cleaning while a load notes what was acknowledged: full, half of it deleted, and some of that written again. Two
# of these files share a zone, so that every other one in the place of which something is to be written has a neighbour to be moved
size=4
fill a
rm "$T_DIR"/a/fill/a*[02468]
give_back
before=$(stat_of moved_bytes)
"$T_PROGS/ackload" run --journal $journal --dir "$T_DIR/a/load" --seed 11 >load.log 2>&1 &
load=$!
for ((k = 0; k < n / 2 - 8; k++)); do put "$T_DIR/a/fill/c$k" || break; done
is "$k" $((n / 2 - 8)) "files take the place of those deleted, beside a load"
try "by cleaning under load" wait_for 60 moved
enough() { [ "$(grep -c ^E $journal)" -ge 50 ]; }
wait_for 60 enough
if tap_gone $load; then not_ok "the load met no error" "$(cat load.log)"; else ok "the load met no error"; fi
acked=$(grep -c ^E $journal)
[ "$acked" -ge 50 ] && ok "$acked operations were acknowledged" || not_ok "only $acked operations were acknowledged"

# ---- and then there is no power, for the machine: its own drive goes on with what it has
cp "$T_DIR/claudefsd.conf" /share/ && : >/share/second
echo "# the machine stops dead after $acked operations"
sleep 0.5
echo b >/proc/sysrq-trigger
sleep 60
exit 1
