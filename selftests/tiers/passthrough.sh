#!/bin/bash
# The passthrough tier: a scratch file (O_TMPFILE | O_EXCL) is read, written and mapped without a request to the client, which
# may even be stopped; random operations on one give the right bytes; its attributes, holes and locks are as of any file; the kill
# switch leaves open files alone; the death of the client leaves nothing behind; all other files go the ordinary way, and scratch files,
# too, where the cache has no room for them.
# timeout: 180
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

cluster_real || skip_all "another file system"
on=a # the mount that is asked
status() { claudefs status --json "$T_DIR/$on" | python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
tier() { status "d['tiers']['passthrough'].get('$1')"; }
requests() { status "[d['fuse'].get(k, 0) for k in ('read', 'write')]"; } # of file data, so far
cached_files() { find "$T_DIR/cache-a" -type f | wc -l; }

cluster_start
cluster_mount a
wait_for 10 eval '[ "$(tier state 2>/dev/null)" ]' # the control socket comes last
[ "$(tier state)" = on ] || skip_all "passthrough is $(tier state): $(tier why)"

# fsx opens its file by name, again and again, also with O_DIRECT: here the name of an open file without one
cat >"$T_DIR/scratch.py" <<'END'
import os, sys
fd = os.open(sys.argv[1], os.O_TMPFILE | os.O_EXCL | os.O_RDWR, 0o600)
os.set_inheritable(fd, True)
os.execv(sys.argv[2], [sys.argv[2]] + sys.argv[3:] + [f"/proc/self/fd/{fd}"])
END
before=$(requests)
for seed in 1 2; do
	tap_from python3 "$T_DIR/scratch.py" "$T_DIR/a" "$T_PROGS/fsx" --seed $seed --ops 5000
done
is "$(requests)" "$before" "random operations on scratch files: the client saw no read and no write"
is "$(tier files)" 2 "both were passthrough files"
[ "$(tier opens)" -gt 2 ] && ok "and so was every further open of them" || not_ok "and so was every further open of them" "$(tier opens)"
wait_for 10 eval '[ "$(tier open_files)" = 0 ]' && ok "none is left open" || not_ok "none is left open" "$(tier open_files)"

cat >"$T_DIR/holder.py" <<'END'
# answers commands about one scratch file
import fcntl, mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_TMPFILE | os.O_EXCL | os.O_RDWR, 0o600)
other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
def io():
    os.pwrite(fd, b"written" * 1000, 5)
    assert os.pread(other, 7000, 5) == b"written" * 1000
    assert m[5:12] == b"written"
    m[500000:500003] = b"abc"
    assert os.pread(fd, 3, 500000) == b"abc"
    return "ok"
def attrs():
    a = os.fstat(fd)
    time.sleep(0.02)
    os.pwrite(fd, b"longer", 2 << 20)
    b = os.fstat(fd)
    assert (a.st_size, b.st_size, b.st_nlink) == (1 << 20, (2 << 20) + 6, 0), (a, b)
    assert b.st_mtime_ns > a.st_mtime_ns and b.st_ctime_ns >= b.st_mtime_ns and b.st_blocks > 0, (a, b)
    os.utime(fd, ns=(3 * 10**9 + 7, 5 * 10**9 + 9))
    assert os.fstat(fd).st_mtime_ns == 5 * 10**9 + 9
    os.fchmod(fd, 0o640)
    c = os.fstat(fd)
    assert c.st_mtime_ns == 5 * 10**9 + 9 and c.st_mode & 0o777 == 0o640, c
    os.pwrite(other, b"x", 0)
    assert os.fstat(fd).st_mtime_ns > 10**18
    return "ok"
def space():
    assert os.lseek(fd, 1 << 20, os.SEEK_DATA) == 2 << 20
    assert os.lseek(fd, 600000, os.SEEK_HOLE) < 2 << 20
    os.posix_fallocate(fd, 0, 4 << 20)
    assert os.fstat(fd).st_size == 4 << 20 and os.fstat(fd).st_blocks * 512 >= 4 << 20
    os.ftruncate(other, 100)
    assert os.fstat(fd).st_size == 100 and os.pread(fd, 200, 0)[5:] == (b"written" * 14)[:95]
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "no lock"
    except BlockingIOError:
        pass
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.fsync(fd)
    os.ftruncate(fd, 1 << 20)
    with open(sys.argv[1] + "/copy", "wb") as out:
        os.lseek(fd, 0, 0)
        os.copy_file_range(fd, out.fileno(), 100) if hasattr(os, "copy_file_range") else 0
        os.sendfile(out.fileno(), fd, 0, 100)
    assert os.stat(sys.argv[1] + "/copy").st_size == 200
    try:
        os.link(f"/proc/self/fd/{fd}", sys.argv[1] + "/name", src_dir_fd=os.open("/", os.O_RDONLY), follow_symlinks=True)
        return "got a name"
    except FileNotFoundError:
        return "ok"
for line in sys.stdin:
    try:
        print(globals()[line.strip()](), flush=True)
    except Exception as e:
        print(repr(e), flush=True)
END
coproc holder { exec python3 "$T_DIR/holder.py" "$T_DIR/a" 2>&1; }
holder_in=${holder[1]} holder_out=${holder[0]} holder_pid=$holder_PID
holder_end() { kill -KILL "$holder_pid" 2>/dev/null || :; }
cleanup holder_end
ask() { # COMMAND WANTED NAME
	local answer="no answer"
	echo "$1" >&"$holder_in"
	read -r -t 20 answer <&"$holder_out"
	is "$answer" "$2" "$3"
}
ask io ok "reads, writes and mappings see each other"
kill -STOP "$(cluster_pid a)"
ask io ok "also while the client is stopped"
kill -CONT "$(cluster_pid a)"
ask attrs ok "size, times and mode are those of any file"
ask space ok "so are holes, space, truncation, locks and copies; and it never gets a name"

claudefs tier "$T_DIR/a" passthrough off >/dev/null
files=$(tier files)
is "$(tier state)" "switched off" "the tier is switched off"
tap_from python3 "$T_DIR/scratch.py" "$T_DIR/a" "$T_PROGS/fsx" --seed 3 --ops 500
is "$(tier files)" "$files" "a new scratch file is an ordinary one"
ask io ok "the open one stays as it is"
claudefs tier "$T_DIR/a" passthrough on >/dev/null
tap_from "$T_PROGS/fsx" --seed 4 --ops 1000 "$T_DIR/a/named"
is "$(tier files)" "$files" "a file with a name never passes through"
is "$(cached_files)" "$(find "$T_DIR/cache-a" -type f -name '????????????????' | wc -l)" "backing files have no names in the cache directory"

cluster_kill9 a
ask io ok "the client was killed: the open file still works"
holder_end
wait "$holder_pid" 2>/dev/null
! cluster_mounted "$T_DIR/a" || umount -l "$T_DIR/a"
cluster_forget a
rm -f "$T_DIR/a.pid"
cluster_mount a
is "$(cached_files)" 0 "and nothing is left of it"

mkdir "$T_DIR/cache-b"
mount -t tmpfs -o size=16m tmpfs "$T_DIR/cache-b"
cleanup umount -l "$T_DIR/cache-b"
cluster_mount b
on=b
wait_for 10 eval '[ "$(tier state 2>/dev/null)" ]'
if [ "$(tier state)" = on ]; then
	cat >"$T_DIR/full.py" <<-'END'
		import errno, os, sys
		fd = os.open(sys.argv[1], os.O_TMPFILE | os.O_EXCL | os.O_RDWR, 0o600)
		os.pwrite(fd, b"early" * 1000, 0)
		with open(sys.argv[2], "wb") as fill:
		    fill.write(bytes(15900000))
		try:
		    for i in range(1, 32):
		        os.pwrite(fd, bytes(1 << 20), i << 20)
		    print("no end of it")
		except OSError as e:
		    print(errno.errorcode[e.errno], os.pread(fd, 5000, 0) == b"early" * 1000)
	END
	is "$(python3 "$T_DIR/full.py" "$T_DIR/b" "$T_DIR/cache-b/fill")" "ENOSPC True" "a scratch file on a cache that gets full: ENOSPC"
	tap_from python3 "$T_DIR/scratch.py" "$T_DIR/b" "$T_PROGS/fsx" --seed 5 --ops 500 --size 20000
	is "$(tier files) $(tier no_room)" "1 1" "a new scratch file does not go to a cache that is nearly full"
else
	skip "passthrough is $(tier state): $(tier why)" "scratch files on a full cache"
fi
cluster_end
done_testing
