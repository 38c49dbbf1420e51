# bpf.sh: the bpf tier, in the test machine: instructions, where one is one nanosecond (QEMU's -icount), and rates. BPF_FILES=n: names of
# the large directory (100000). They are made here, where that takes a minute, in a store that the machine gets as a disk.
# shellcheck shell=bash
bpf_kernel=$(readlink -f build/dl/vm/7 2>/dev/null) bpf_kernel=${bpf_kernel##*/7-}
bpf_boot() { # OPTION... -- SCRIPT ARGUMENT...
	T_TOP=$PWD T_BIN=$bin selftests/vm/machine/boot.sh --timeout 3600 "$@" 2>>"$kb_dir/vm.log" ||
		kb_skip "bpf" "$(tail -n 1 "$kb_dir/vm.log")"
}
bpf_store() { # FILES: $kb_dir/files, an ext4 with a store and its state, and in it a directory of so many names, another of ten
	local dir=$kb_dir/bpf addr=127.0.0.1:$((port + 1)) part pid pids=()
	mkdir -p "$dir/fs/state" "$dir/w" "$dir/cache"
	"$bin/claudefs" format --size 3G "$dir/fs/store.img" >/dev/null || return
	"$bin/claudefsd" --listen "$addr" --target "$dir/fs/store.img" --state-dir "$dir/fs/state" --log-file "$dir/log" & pid=$!
	for _ in $(seq 100); do "$bin/claudefs" status "$addr" >/dev/null 2>&1 && break; sleep 0.1; done
	if "$bin/claudefs" mount "$addr" "$dir/w" -o "bpf=off,cachedir=$dir/cache"; then
		mkdir "$dir"/w/{d,t,t/ten,t/many}
		echo x >"$dir/w/d/f"
		mkfifo "$dir"/w/t/{ten,many}/f "$dir"/w/t/ten/{1..9}
		for part in 0 1 2 3 4 5 6 7; do # several at once share journal writes
			(seq $((part + 2)) 8 "$1" | sed "s|^|$dir/w/t/many/a_file_|" | xargs -n 500 mkfifo) & pids+=($!)
		done
		for part in "${pids[@]}"; do wait "$part"; done
		umount "$dir/w"
	fi
	kill "$pid"
	wait "$pid"
	mke2fs -q -t ext4 -O ^has_journal -d "$dir/fs" "$kb_dir/files" 6G && rm -rf "$dir"
}
if [ "${CLAUDEFS_NO_VM-}" ]; then
	kb_skip "bpf" "$CLAUDEFS_NO_VM"
elif ! selftests/vm/machine/setup.sh qemu guest 7 >"$kb_dir/vm.log" 2>&1 || ! scripts/kmod.sh "$bpf_kernel" >>"$kb_dir/vm.log" 2>&1; then
	kb_skip "bpf" "$(tail -n 1 "$kb_dir/vm.log")"
elif ! bpf_store "${BPF_FILES:-100000}" 2>>"$kb_dir/vm.log"; then
	kb_skip "bpf" "no store: $(tail -n 1 "$kb_dir/vm.log")"
else
	bpf_module=$PWD/build/kmod/$bpf_kernel/claudefs_fuse.ko
	VM_ACCEL=tcg,thread=single bpf_boot --disk "$kb_dir/files" --cpus 1 --mem 3G --qemu -icount --qemu shift=0,sleep=off \
		-- "$PWD/tools/bench/bpf_guest.sh" "$bpf_module" "${BPF_FILES:-100000}"
	rm -f "$kb_dir/files"
	bpf_boot --disk "$kb_dir/scratch,size=4G" -- "$PWD/tools/bench/bpf_rate_guest.sh" "$bpf_module"
fi
