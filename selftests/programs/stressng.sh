#!/bin/bash
# stress-ng --verify: file system stressors, two workers each, those that pass on ext4.
# timeout: 400
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
command -v stress-ng >/dev/null || skip_all "no stress-ng"

cluster_start
cluster_mount a
server=$(cluster_rss server) client=$(cluster_rss a)
# "name", or "name:option,option"
stressors=(access aio aiol chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fcntl fiemap
	file-ioctl filename flock fpunch fsize fstat getdent handle hdd hdd:--hdd-opts,sync hdd:--hdd-opts,direct inode-flags inotify
	io iomix lease link locka lockf lockofd mknod mmap:--mmap-file mmap:--mmap-file,--mmap-async msync open readahead rename
	revio seek seek:--seek-punch sendfile symlink sync-file touch utime verity xattr)
for s in ${T_STRESSORS-"${stressors[@]}"}; do
	name=${s%%:*} opts=()
	[ "$s" = "$name" ] || IFS=, read -ra opts <<<"${s#*:}"
	mkdir -p "$T_DIR/a/stress"
	timeout -k 5 60 stress-ng "--$name" 2 "${opts[@]}" --timeout "${T_SECONDS-2}s" --verify --temp-path "$T_DIR/a/stress" --no-rand-seed \
		>"$T_DIR/out" 2>&1 </dev/null
	rc=$?
	case $rc in
	0) ok "$s" ;;
	3 | 4) skip "$(grep -m 1 -E "skipp|not (supported|implemented)" "$T_DIR/out" | sed 's/.*] //')" "$s" ;;
	124 | 137) not_ok "$s" "does not end" ;;
	*) not_ok "$s" "exit $rc"$'\n'"$(grep -vE 'setting to|dispatching|metrc' "$T_DIR/out" | tail -n 12)" ;;
	esac
	[ "$(find "$T_DIR/a/stress" -mindepth 1 | head -n 1)" = "" ] || { diag "$s left: $(find "$T_DIR/a/stress" -mindepth 1 | head -n 3)"; rm -rf "$T_DIR/a/stress"; }
done
diag "server: $server -> $(cluster_rss server) KiB, client: $client -> $(cluster_rss a) KiB"
cluster_end
done_testing
