#!/bin/bash
# Power cuts through the whole stack: all that a server writes to its store, under the load of two mounts, is recorded; then the drive
# is made as it would be after a cut at many places of that record (flushed writes are there, of the others nothing, all, or some
# sectors), and each such store passes fsck, starts, mounts, and holds what had been acknowledged by then.
# T_CUTS=n: how many places (6, T_LONG=1: 40); the kinds of cut alternate. See selftests/progs/recorder.c.
# timeout: 900
# tiers: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
cluster_real || skip_all "there is no server to record"
cluster_need
cleanup cluster_cleanup
[ "$T_ISOLATED" != net ] || ip link set lo up

seed=${T_SEED:-$((RANDOM * 32768 + RANDOM + 1))}
diag "T_SEED=$seed"
rec=$T_DIR/rec base=$T_DIR/base.img
mkdir -p "$rec" "$T_DIR/state"
try "format" "$T_BIN/claudefs" format --size 1G "$base"
cp --sparse=always "$base" "$T_DIR/recorded.img"
"$T_PROGS/recorder" mount "$T_DIR/recorded.img" "$T_DIR/writes" "$rec" "$T_DIR/journal.0" "$T_DIR/journal.1" >"$T_DIR/recorder.log" 2>&1 &
recorder=$!
cleanup stop_pid "$recorder"
cleanup eval '! mountpoint -q "$rec" || umount -l "$rec"'
wait_for 10 test -e "$rec/store.img" || { not_ok "the recorder mounts" "$(cat "$T_DIR/recorder.log")"; exit 1; }

config() { # IMAGE: the server's
	cat >"$T_DIR/claudefsd.conf" <<-END
		[server]
		listen = $CLUSTER_ADDR
		state_dir = $T_DIR/state
		checkpoint_bytes = 1048576

		[target.0]
		path = $1
	END
}

config "$rec/store.img"
cluster_restart
cluster_mount a
cluster_mount b
pids=()
for n in 0 1; do
	m=$([ $n = 0 ] && echo a || echo b)
	"$T_PROGS/ackload" run --journal "$T_DIR/journal.$n" --dir "$T_DIR/$m/load.$n" --seed "$((seed + n))" >"$T_DIR/load.$n" 2>&1 &
	pids+=($!)
	cleanup stop_pid $! 1
done
sleep "$(slow "${T_SECONDS-4}")"
kill -TERM "${pids[@]}"
for pid in "${pids[@]}"; do wait "$pid" || not_ok "the load ended well" "$(cat "$T_DIR"/load.?)"; done
cluster_umount a
cluster_umount b
cluster_stop
umount "$rec"
wait "$recorder"
info=$("$T_PROGS/recorder" info "$T_DIR/writes")
diag "$info; $(grep -hc '^E' "$T_DIR"/journal.? | paste -sd+ | bc) operations acknowledged"
total=${info%% *}
if [ "$total" -gt 200 ]; then ok "enough was recorded"; else not_ok "enough was recorded" "$info"; exit 1; fi

cp "$T_DIR/journal.0" "$T_DIR/all.0"
cp "$T_DIR/journal.1" "$T_DIR/all.1"
cuts=${T_CUTS-$(long 6 40)}
for ((i = 1; i <= cuts; i++)); do
	at=$((total * i / cuts - (seed + i * 7919) % (total / cuts)))
	fate=$((i % 4 ? seed + i : 0))		# every fourth: all that was written by then
	rm -rf "$T_DIR/state" "$T_DIR/cut.img"
	mkdir "$T_DIR/state"
	cp --sparse=always "$base" "$T_DIR/cut.img"
	read -r -a seen < <("$T_PROGS/recorder" replay "$T_DIR/writes" "$T_DIR/cut.img" "$at" "$fate")
	sync "$T_DIR/cut.img" # the copy's writing back is not what the start is measured by
	config "$T_DIR/cut.img"
	name="cut $i at record $at, fate $fate"
	problems=''
	out=$("$T_BIN/claudefs" fsck --config "$T_DIR/claudefsd.conf" 2>&1) || problems+="fsck: $out"$'\n'
	cluster_restart
	cluster_mount "m$i"
	for n in 0 1; do
		head -c "${seen[n]}" "$T_DIR/all.$n" >"$T_DIR/journal.$n"
		[ "$(grep -c '^E' "$T_DIR/journal.$n")" -gt 0 ] || continue
		out=$("$T_PROGS/ackload" check --journal "$T_DIR/journal.$n" --dir "$T_DIR/m$i/load.$n") || problems+="$out"$'\n'
	done
	cluster_umount "m$i"
	cluster_stop
	rm -rf "$T_DIR/cache-m$i"
	if [ "$problems" ]; then not_ok "$name" "$problems"; else ok "$name"; fi
done
cluster_end
done_testing
