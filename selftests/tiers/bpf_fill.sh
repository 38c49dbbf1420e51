#!/bin/bash
# The maps of the bpf tier are filled where no program can answer from them, too (-o bpf_mem=): a directory of which some
# names were asked for is fetched whole; what another mount changes is not valid any more when its call returns. The
# program itself is tested in the machine of selftests/vm/bpf.sh.
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"

table() { cat /sys/fs/bpf/claudefs/*-a/"$1" 2>/dev/null; }
# NAME...: all stand in the table of mount a, valid and present
present() {
	local name
	for name; do table names | grep -q " valid present $name\$" || return 1; done
}
kept() { table attrs | awk -v i="$1" '$1 == i && $4 == "valid" {n = 1} END {exit !n}'; }

cluster_start
cluster_mount w bpf=off
mkdir w/d
for i in {1..60}; do echo "$i" >w/d/f$i; done
mkfifo w/d/p{1..300}
cluster_umount w
cluster_mount a bpf_mem=4M
answers() { "$T_BIN/claudefs" status "$T_DIR/a" >status.txt 2>&1; } # when everything has been started
wait_for 20 answers
[ -d /sys/fs/bpf/claudefs ] || { cluster_end >/dev/null; skip_all "no BPF maps here: $(sed -n '/^bpf:/,$p' status.txt | tr -s '\n ' ' ')"; }
cluster_mount b
stat a/d/f{1..4} >/dev/null
try "a directory of which four names were asked for is fetched whole" wait_for 20 present f{1..60}
ino=$(stat -c %i b/d/f7)
try "with attributes" wait_for 5 kept "$ino"
try "their inode number" test "$(table names | awk '$6 == "f7" {print $2}')" = "$ino"
chmod 600 b/d/f7
fails "attributes that another mount has changed are gone when its call returns" kept "$ino"
is "$(stat -c %a a/d/f7)" 600 "and asked for"
rm b/d/f8
fails "so is a name" present f8
stat a/d/nothing 2>/dev/null
try "an absent name is kept" wait_for 5 sh -c 'cat /sys/fs/bpf/claudefs/*-a/names | grep -q " valid absent nothing$"'
mv b/d/f9 b/d/nothing
fails "until there is one" sh -c 'cat /sys/fs/bpf/claudefs/*-a/names | grep -q " valid absent nothing$"'
is "$(cat a/d/nothing)" 9 "which is seen"
echo more >>a/d/f10
fails "what this mount holds exclusively is not there" kept "$(stat -c %i a/d/f10)"

# ---- not again for a few names that others change, when it may be fetched again: 10 s after it was
readdirs() { "$T_BIN/claudefs" status --json "$T_DIR/a" | grep -io '"readdir":[0-9]*' | tail -n 1; }
sleep 11
before=$(readdirs)
for i in 11 12 13; do # more at once would cost the lease on the directory (docs/leases.md, Anti-storm)
	rm b/d/f$i
	mkfifo b/d/f$i
	sleep 0.7
done
stat a/d/f{11..13} >/dev/null
try "names that others changed come back one by one" present f{11..13}
exec 9<a/d
sleep 1
exec 9<&-
is "$(readdirs)" "$before" "and nothing is fetched again for them, nor when the directory is opened"
rm b/d/p{1..60}
mkfifo b/d/p{1..60}
stat a/d/p{1..60} >/dev/null
more() { [ "$(readdirs)" != "$before" ]; }
try "when the lease on it was lost, it is fetched again" wait_for 20 more
cluster_end
done_testing
