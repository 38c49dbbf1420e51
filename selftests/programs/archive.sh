#!/bin/bash
# tar and rsync -aHAX there and back keep contents and everything about them: modes, owners, times to the nanosecond,
# hard links, symlinks, ACLs, xattrs, a fifo, device nodes, a set-gid directory.
# timeout: 300
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
command -v setfacl >/dev/null || skip_all "no setfacl"
command -v getfattr >/dev/null || skip_all "no getfattr"

cluster_start
cluster_mount a
cluster_mount b
what() { # everything about a tree, comparable
	(cd "$1" && find . -printf '%P %y %m %U:%G %n %l %T@ ' \( -type f -printf '%s\n' -o -printf '0\n' \) | sort)
	(cd "$1" && find . -type f -print0 | sort -z | xargs -0 md5sum)
	(cd "$1" && find . \( -type b -o -type c \) -exec stat -c '%n %t:%T' {} + | sort)
	(cd "$1" && find . -type f -links +1 -printf '%i %P\n' | sort -k2 | awk '{if (!($1 in n)) n[$1] = ++c; print n[$1], $2}')
	(cd "$1" && find . ! -type l -print0 | sort -z | xargs -0 getfacl -np)
	(cd "$1" && find . -print0 | sort -z | xargs -0 getfattr -hdm - -e hex)
}
src=$T_DIR/src
mkdir "$src"
cp -a /usr/include/linux /usr/include/x86_64-linux-gnu "$src" 2>/dev/null || cp -a /usr/include/linux "$src"
cp -a /usr/include/*.h "$src"
cd "$src" || exit 1
mkdir special special/setgid special/empty
echo data >special/one
ln special/one special/two
ln special/one special/setgid/three
ln -s ../nowhere special/dangling
ln -s one special/link
mkfifo -m 640 special/fifo
mknod special/null c 1 3
mknod special/disk b 200 70000
echo private >special/private
chown 1234:5678 special/private
chmod 4751 special/private
chgrp 2001 special/setgid
chmod 3771 special/setgid
setfacl -m u:1001:rw,g:2002:r special/one
setfacl -d -m u:1001:rwx special/empty
setfattr -n user.colour -v blue special/one
setfattr -n user.binary -v 0x00ff01 special/setgid
setfattr -n trusted.secret -v 42 special/private
truncate -s 10M special/sparse
printf x | dd of=special/sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null
printf 'new\nline' >"special/odd
name"
touch -d '1999-12-31 23:59:59.123456789' special/private special/empty special/setgid
touch -h -d '2001-02-03 04:05:06.7' special/link
head -c 3000000 /dev/urandom >special/large
cd "$T_DIR" || exit 1
what src >want
diag "$(wc -l <want) lines describe $(find src | wc -l) files, $(du -sm src | cut -f1) MiB"

tarflags=(--acls --xattrs --xattrs-include=* --numeric-owner -p --format=posix)
try "tar into the mount" sh -c 'tar "$@" -Scf - -C src . | (mkdir a/tar && tar "$@" -xf - -C a/tar)' - "${tarflags[@]}"
what a/tar >got
try "the same, seen on the mount" diff want got
what b/tar >got
try "the same, seen on the other mount" diff want got
[ "$(stat -c %b a/tar/special/sparse)" -lt 5000 ] && ok "a sparse file did not fill" || not_ok "a sparse file did not fill" "$(stat a/tar/special/sparse)"
try "tar out of the mount" sh -c 'mkdir back && tar "$@" -Scf - -C b/tar . | tar "$@" -xf - -C back' - "${tarflags[@]}"
what back >got
try "the same, back again" diff want got
rm -rf back

if command -v rsync >/dev/null; then
	try "rsync -aHAX into the mount" rsync -aHAX --numeric-ids src/ b/rsync
	what b/rsync >got
	try "the same, by rsync" diff want got
	is "$(rsync -aHAXn --numeric-ids -i --checksum src/ a/rsync | grep -v '^cd+++++++++')" "" "rsync finds nothing to do, through the other mount"
	try "rsync from mount to mount, and back" sh -c 'rsync -aHAX --numeric-ids a/rsync/ b/second && rsync -aHAX --numeric-ids b/second/ back'
	what back >got
	try "the same, after three copies" diff want got
else
	skip "no rsync" "rsync"
fi
try "cp -a within the mount" cp -a a/tar a/copied
what b/copied >got
try "the same, by cp -a" diff want got
try "removing it all" sh -c 'rm -rf a/tar a/copied b/rsync b/second'
is "$(find a | wc -l)" 1 "nothing is left"
cluster_end
done_testing
