#!/bin/bash
# bpf.sh MODULE: runs in the guest: the bpf tier. Requests are counted where the daemon takes them (`claudefs status`);
# the kernel's own caches are emptied before, so that what is answered is answered by the program. Speaks TAP.
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
LEASE_MS=10000

fails "without the module bpf=on is refused" "$T_BIN/claudefs" mount -f -o bpf=on 127.0.0.1:1 "$T_DIR"
insmod "$module" || { not_ok "the module loads"; exit 1; }
ok "the module loads"

cluster_start
cluster_mount w bpf=off
mkdir w/d
long=$(printf 'n%.0s' {1..250})
for i in {1..40}; do echo "$i" >w/d/f$i; done
echo long >"w/d/$long"
mkdir w/d/sub
ln -s target w/d/link
setfattr -n user.x -v y w/d/f2
cluster_umount w
cluster_mount a bpf=on
cluster_mount b bpf=on
for name in a b; do wait_for 20 state "$name"; done
like "$(tier a)" '"state":"on"' "the program is loaded and attached"

# ---- answered without the daemon
ls -lR a/d >/dev/null
stat a/d/f1 a/d/"$long" >/dev/null
absent a/d/nothing
absent a/d/"${long}x"
getfattr -n user.none a/d/f1 >/dev/null 2>&1
sleep 0.2
quiet a "names and attributes" stat a/d/f{1..40} a/d/sub a/d/link
quiet a "birth time (statx)" stat -c %w a/d/f{1..40}
quiet a "a name of 250 bytes" stat "a/d/$long"
quiet a "an absent name" absent a/d/nothing
quiet a "an absent extended attribute" bash -c '! getfattr -n user.other a/d/f1'
quiet a "absent where others are present" bash -c '! getfattr -n security.capability a/d/f2'
is "$(getfattr --only-values -n user.x a/d/f2)" y "an extended attribute that is there is the daemon's to tell"
is "$(stat -c '%s %a %h %u %g %b %Y %F' a/d/f{1..40} a/d/sub)" \
	"$("$T_BIN/claudefs" tier a bpf off >/dev/null; cold; stat -c '%s %a %h %u %g %b %Y %F' a/d/f{1..40} a/d/sub)" \
	"what the program says is what the daemon says"
cold
before=$(asked a)
stat a/d/f1 >/dev/null
[ "$(asked a)" -gt "$before" ] && ok "the switch: off, and the daemon is asked" || not_ok "the switch: off, and the daemon is asked"
try "and on again" "$T_BIN/claudefs" tier a bpf on
date -s '+1 hour' >/dev/null
quiet a "the clock set forward by an hour" stat a/d/f{1..40}
date -s '-1 hour' >/dev/null

# ---- a daemon that is stopped answers, until the lease ends
pid=$(cluster_pid a)
cold
kill -STOP "$pid"
try "a stopped daemon: hits go on" timeout 5 stat a/d/f{1..40}
sleep $((LEASE_MS / 1000 + 1))
cold
timeout -s KILL 3 stat a/d/f1 >/dev/null 2>&1
is $? 137 "a stopped daemon: no answer once the lease is over"
kill -CONT "$pid"
try "it goes on" timeout 60 stat a/d/f1

# ---- right between mounts
ls -l a/d b/d >/dev/null
chmod 600 b/d/f3
is "$(stat -c %a a/d/f3)" 600 "chmod on the other mount is seen at once"
rm b/d/f4
absent a/d/f4 && ok "so is rm" || not_ok "so is rm"
absent a/d/new
echo hello >b/d/new
is "$(cat a/d/new)" hello "and a name that was absent"
mv b/d/f5 b/d/sub/f5
absent a/d/f5 && is "$(cat a/d/sub/f5)" 5 "and a rename"
chmod 640 a/d/f6
is "$(stat -c %a a/d/f6)" 640 "a change of its own"
echo more >>a/d/f7
is "$(cat b/d/f7)" $'7\nmore' "appended data, on the other mount"
is "$(stat -c %s a/d/f7)" 7 "and its size here"
tap_from "$T_PROGS/coherence" --rounds 2 "$T_DIR/a" "$T_DIR/b" create rename_ listing xattrs
before=$(hits b)
tap_from "$T_PROGS/recalls" "$T_DIR/a" "$T_DIR/b" "${RECALL_SECONDS:-8}" "${SEED:-$RANDOM}"
[ "$(hits b)" -gt "$before" ] && ok "with hits: $(($(hits b) - before))" || not_ok "with hits" "$(tier b)"

# ---- ends
fails "rmmod while it answers is refused" rmmod claudefs_fuse
ls -ld b b/d b/d/f{10..40} >/dev/null
sleep 0.2
quiet b "after that" stat b/d/f{10..40}
(while stat b/d/f1{0..9} >/dev/null 2>&1; do :; done) &
looker=$!
sleep 0.5
cluster_kill9 b
wait_for 30 tap_gone "$looker" && ok "a daemon killed while hits stream" || not_ok "a daemon killed while hits stream"
fails "then its mount is dead" timeout 5 stat b/d/f10
umount -l b
# not in the foreground: the daemon is a child of the process that was started
mkdir c cache-c
try "a mount that goes to the background" "$T_BIN/claudefs" mount -o "cachedir=$T_DIR/cache-c,bpf=on" "$CLUSTER_ADDR" "$T_DIR/c"
stat c/d/f{10..14} >/dev/null
fetched() { tier c | grep -q '"prefetched_dirs":[1-9]'; }
wait_for 30 fetched || diag "$(tier c)"
quiet c "names that were never looked up before" stat c/d/f{15..40}
(while stat c/d/f1{0..9} >/dev/null 2>&1; do :; done) &
looker=$!
wait_for 30 umount c && ok "umount while hits stream" || not_ok "umount while hits stream"
wait "$looker"
wait_for 30 bash -c '! mountpoint -q c'
cluster_end
wait_for 30 rmmod claudefs_fuse && ok "rmmod when all have ended" || not_ok "rmmod when all have ended"
is "$(ls /sys/fs/bpf/claudefs 2>/dev/null | wc -l)" 0 "nothing stays pinned"
kernel_well
done_testing
