# shellcheck shell=bash
# uring.sh - requests that the kernel's caches do not answer, but the client does: by io_uring against /dev/fuse.
uring_param=/sys/module/fuse/parameters/enable_uring
uring_was=$(cat $uring_param 2>/dev/null || echo none)
if [ "$uring_was" != none ] && exec 9<$uring_param && flock -w 60 9; then
	echo Y >$uring_param
	kb_mount ring uring=on 9<&- && uring_ok=1 || uring_ok=
	echo "$uring_was" >$uring_param
	exec 9<&-
else
	uring_ok='' kb_why="the kernel has no FUSE over io_uring"
fi
if [ "$uring_ok" ] && kb_mount plain uring=off; then
	for row in "statsync 1 1.8 stat, asking the client" "statsync 4 - stat, asking the client" "open 1 - open + close" "open 4 2.0 open + close"; do
		read -r op threads aim what <<<"$row"
		kb_compare "$what, $threads thread(s): uring, /dev/fuse" "$aim" "$bin/opbench $op $threads $seconds $kb_dir/ring" \
			"$bin/opbench $op $threads $seconds $kb_dir/plain"
	done
else
	kb_skip "uring" "$kb_why"
fi
