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
cluster_end
done_testing
