#!/bin/bash
# gate.sh MODULE: runs in the guest: ordinary files that are passed through. Requests are counted where the client takes them
# (`claudefs status`). Speaks TAP.
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
LEASE_MS=10000 T_START_SECONDS=${T_START_SECONDS:-90}
field() { state "$1" | python3 -c "import json, sys; d = json.load(sys.stdin); print(d['tiers']['passthrough'].get('$2'))"; }
data_requests() { state "$1" | python3 -c "import json, sys; f = json.load(sys.stdin)['fuse']; print(f.get('read', 0) + f.get('write', 0))"; }

like "$("$T_BIN/claudefs" doctor 2>&1 | grep passthrough)" 'scratch files only' "doctor: without the module, scratch files only"
insmod "$module" || { not_ok "the module loads"; exit 1; }
ok "the module loads"
mkdir alone
tap_from "$T_PROGS/gates" "$T_DIR/alone"

# a process that reads a file until it is worth a gate, holds it open and mapped, and answers commands about it
cat >holder.py <<'END'
import mmap, os, sys, time
for i in range(3):
    open(sys.argv[1], "rb").read()
    time.sleep(0.3)
fd = os.open(sys.argv[1], os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
for line in sys.stdin:
    what, *args = line.split()
    if what == "read":
        out = os.pread(fd, int(args[1]), int(args[0])).decode("latin1")
    elif what == "load":
        out = m[int(args[0]):int(args[0]) + int(args[1])].decode("latin1")
    elif what == "write":
        out = os.pwrite(fd, args[1].encode(), int(args[0]))
    elif what == "store":
        m[int(args[0]):int(args[0]) + len(args[1])] = args[1].encode(); out = "ok"
    elif what == "fsync":
        os.fsync(fd); out = "ok"
    elif what == "msync":
        m.flush(); out = "ok"
    elif what == "size":
        out = os.fstat(fd).st_size
    print(str(out).replace("\0", "0"), flush=True)
END
holder() { # NAME FILE: starts one, to be spoken to by `tell NAME COMMAND...`
	mkfifo "$1.in" "$1.out"
	python3 "$T_DIR/holder.py" "$2" <"$1.in" >"$1.out" 2>"$1.err" &
	printf -v "$1_pid" %s $!
	eval "exec {$1_w}>$1.in {$1_r}<$1.out"
}
tell() {
	local w=$1_w r=$1_r line
	shift
	echo "$*" >&"${!w}"
	read -r -t 60 line <&"${!r}" || line="no answer within 60 s"
	echo "$line"
}

cluster_start
cluster_mount a passthrough=on
cluster_mount b passthrough=on
for name in a b; do wait_for 20 state "$name"; done
is "$(field a why)" None "the tier is on, with nothing to complain of"

# ---- which files
yes abcdefg | head -c 1M >b/f
echo small >b/small
cat a/f a/small >/dev/null
is "$(field a gate_files)" 0 "a file that is read for the first time goes the ordinary way"
wait_for 10 eval 'cat a/f >/dev/null; [ "$(field a gate_files)" -gt 0 ]' && ok "the next time it is passed through" ||
	not_ok "the next time it is passed through" "$(state a)"
before=$(field a gate_files)
cat a/small >/dev/null
chmod u+s a/f
cat a/f >/dev/null
is "$(field a gate_files)" "$before" "a small one is not, nor one with suid"
chmod u-s a/f

# ---- without the client
holder h a/f
is "$(tell h read 0 7)" abcdefg "read"
is "$(tell h write 500000 WRITTEN)" 7 "write"
tell h store 600000 STORED >/dev/null
before=$(data_requests a)
is "$(tell h load 500000 7)$(tell h read 600000 6)$(tell h load 8 4)" WRITTENSTOREDabcd "mapping and read agree"
tell h write 500001 x >/dev/null
tell h store 600001 x >/dev/null
is "$(data_requests a)" "$before" "reads, writes, loads and stores: the client is asked nothing"
[ "$(field a gates)" -gt 0 ] && ok "by a gate" || not_ok "by a gate" "$(state a)"
pid=$(cluster_pid a)
kill -STOP "$pid"
is "$(tell h read 500000 7)$(tell h load 600000 6)$(tell h write 700000 STOPPED)" WxITTENSxORED7 "a stopped client: all goes on"
sleep $((LEASE_MS / 1000 + 1))
echo "load 600000 6" >&"$h_w"
is "$(read -r -t 3 line <&"$h_r"; echo $?-"$line")" 142- "a stopped client: a load waits once the lease is over"
kill -CONT "$pid"
read -r -t 60 line <&"$h_r"
is "${#line}" 6 "and goes on with it"
wait_for 60 stat a/f

# ---- two mounts
tell h write 500000 HERE... >/dev/null
tell h store 600000 HERE... >/dev/null
is "$(dd if=b/f bs=1 skip=500000 count=7 status=none)$(dd if=b/f bs=1 skip=600000 count=7 status=none)" HERE...HERE... \
	"what was written and stored here is read there"
printf THERE.. | dd of=b/f bs=1 seek=500000 conv=notrunc status=none
is "$(tell h read 500000 7) $(tell h load 500000 7)" "THERE.. THERE.." "what is written there is read and loaded here"
holder k b/f
tell k store 600000 MAPPED. >/dev/null
is "$(tell h load 600000 7) $(tell h read 600000 7)" "MAPPED. MAPPED." "what is stored there is loaded and read here"
tell h store 600000 AGAIN.. >/dev/null
is "$(tell k load 600000 7)" AGAIN.. "and the other way round"
tell h write 1048576 grown >/dev/null
is "$(stat -c %s b/f) $(tell k size) $(stat -c %s a/f)" "1048581 1048581 1048581" "a file that grows"
truncate -s 600003 b/f
is "$(tell h size) $(tell h read 600000 10)" "600003 AGA" "one that gets shorter"
truncate -s 1M a/f
is "$(tell k read 600000 2) $(stat -c %s b/f)" "AG 1048576" "and longer"
mtime=$(stat -c %.9Y a/f)
sleep 0.1
tell h store 0 later >/dev/null
tell h msync >/dev/null
[[ $(stat -c %.9Y b/f) > $mtime ]] && ok "a store is a change: mtime" || not_ok "a store is a change: mtime"
fallocate -p -o 4096 -l 8192 a/f
is "$(tell k load 4096 2)" 00 "a hole"

# ---- all files, from their first byte on
cluster_mount c passthrough=on,pass_min=0
cluster_mount d passthrough=on,pass_min=0
wait_for 20 state c
tap_from timeout 300 "$T_PROGS/datarecalls" "$T_DIR/c" "$T_DIR/d" "${RECALL_SECONDS:-20}" "${SEED:-$RANDOM}"
what="both mounts by gates: a store through an ordinary mapping is seen when it is written back"
n=$(field c gate_files) m=$(field d gate_files) # so many gates were made: a second one for who opened the file again when all had closed it
[ "${n:-0}" -ge 1 ] && [ "${m:-0}" -ge 1 ] && ok "$what" || not_ok "$what" "$n and $m gates"
[ "$(field c gate_shuts)" -gt 5 ] && ok "by gates that were shut" || not_ok "by gates that were shut" "$(state c)"
tap_from timeout 300 "$T_PROGS/fsx" --seed 1 --ops 600 c/x
tap_from timeout 300 "$T_PROGS/fsx" --seed "${SEED:-$RANDOM}" --ops 300 c/y d/y
[ "$(field c gate_opens)" -gt 20 ] && ok "random operations, by gates" || not_ok "random operations, by gates" "$(state c)"
cluster_umount c
cluster_umount d

# ---- deaths
tell h write 100 durable >/dev/null
is "$(tell h fsync)" ok "fsync"
tell h store 200 durable >/dev/null
is "$(tell h msync)" ok "msync"
tell h write 5000 lost... >/dev/null
tell h write 1048576 longer >/dev/null
cluster_kill9 a
like "$(tell h read 0 7 2>&1)" '(no answer|^$)' "the client is dead: who read is told so"
exec {h_w}>&- {h_r}<&-
wait "$h_pid"
is "$(dd if=b/f bs=1 skip=100 count=7 status=none)$(dd if=b/f bs=1 skip=200 count=7 status=none)" durabledurable \
	"what was synced is there"
size=$(stat -c %s b/f)
is "$(tail -c +$((1048576 + 1)) b/f | tr -d '\0')$size" "$([ "$size" = 1048576 ] || echo longer)$size" "what was not synced is there or not, but not as zeros"

# ---- ends
fails "rmmod while it is in use is refused" rmmod claudefs_gate
exec {k_w}>&- {k_r}<&-
wait "$k_pid"
cluster_mount a passthrough=on
wait_for 20 state a
python3 - a/f <<'END' && ok "a mapping outlives its open file, and unlink" || not_ok "a mapping outlives its open file, and unlink"
import mmap, os, sys
f = sys.argv[1]
for i in range(3):
    open(f, "rb").read()
fd = os.open(f, os.O_RDWR)
m = mmap.mmap(fd, 0)
os.close(fd)
m[10:15] = b"still"
os.unlink(f)
assert m[100:107] == b"durable" and m[10:15] == b"still"
END
wait_for 20 eval '[ "$(field a gates)" = 0 ]' && ok "no gate is left" || not_ok "no gate is left" "$(state a)"
"$T_BIN/claudefs" tier a passthrough off >/dev/null
before=$(field a gate_files)
yes xyz | head -c 256K >a/g
for _ in 1 2 3; do cat a/g >/dev/null; done
is "$(field a gate_files)" "$before" "the switch: new files go the ordinary way"
cluster_umount a
cluster_umount b
cluster_end
wait_for 30 rmmod claudefs_gate && ok "rmmod when all have ended" || not_ok "rmmod when all have ended"
kernel_well
done_testing
