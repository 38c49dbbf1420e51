#!/bin/bash
# The tables in the BPF file system: a mount has them, cat(1) and bpftool read them, also while the daemon is stopped; they are gone
# after umount, and after SIGKILL with the next mount; with bpf=off there are none.
# timeout: 120
. "$T_TOP/selftests/lib/tap.sh"
. "$T_TOP/selftests/lib/cluster.sh"

base=/sys/fs/bpf/claudefs
json() { python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"; }
gone() { [ ! -e "$1" ]; }
status() { claudefs status --json "$T_DIR/$1" | json "d$2"; }

mounted() { # NAME [OPTS]: and asked: the tables are made a moment after the mount answers
	cluster_mount "$@"
	wait_for 10 status "$1" "['bpf']" || not_ok "mount $1 answers questions"
}

cluster_start
mounted a
why=$(status a "['bpf'].get('why', '')")
dir=$(status a "['bpf'].get('tables', '')")
if [ "$why" ]; then
	cluster_end >/dev/null
	skip_all "this machine has no tables: $why"
fi
is "$(find "$dir" -maxdepth 1 -type f -printf '%f\n' | sort | paste -sd ' ')" "attrs dirs inflight long_names names sessions" \
	"the tables of a mount"
for table in attrs dirs inflight long_names names sessions; do
	like "$(sed -n 1p "$dir/$table")" '^[a-z_ ]+$' "$table begins with a header"
done
session=$(status a "['session']") pid=$(cluster_pid a)
like "$(sed -n 2p "$dir/sessions")" "^$session live $pid [0-9]+ [0-9]+ [0-9]+ $CLUSTER_ADDR\$" "sessions shows the session"
kill -STOP "$pid"
like "$(timeout 10 cat "$dir/sessions" | sed -n 2p)" "^$session live $pid " "also while the daemon is stopped"
kill -CONT "$pid"
if command -v bpftool >/dev/null; then
	like "$(bpftool map dump pinned "$dir/maps/sessions" 2>&1)" "\"session\": $session," "bpftool reads the map below it"
else
	skip "no bpftool" "bpftool reads the map below it"
fi
cluster_umount a
if [ -e "$dir" ]; then not_ok "gone after umount" "$(ls -R "$dir")"; else ok "gone after umount"; fi

mounted a
cluster_kill9 a
if [ -e "$dir/sessions" ]; then ok "what a killed client pinned outlives it"; else not_ok "what a killed client pinned outlives it"; fi
mounted b bpf=off
is "$(status b "['bpf']")" "{'why': 'off by option'}" "bpf=off: no tables"
if [ -e "$dir" ]; then ok "and those of others are nothing to it"; else not_ok "and those of others are nothing to it"; fi
cluster_umount b
mounted c
try "the next mount removes them" wait_for 10 gone "$dir"
cluster_umount c

# what is kept under leases, where no program answers from it, too
mounted d bpf_mem=4M
mounted e bpf=off
dir=$(status d "['bpf']['tables']")
mkdir "$T_DIR/d/dir"
for ((i = 0; i < 20; i++)); do mkfifo "$T_DIR/d/dir/file$i"; done # of files held exclusively, the attributes stay out
ls -l "$T_DIR/d/dir" >"$T_DIR/ls"
stat "$T_DIR/d/dir/absent" >"$T_DIR/ls" 2>&1
ino=$(stat -c %i "$T_DIR/d/dir")
names() { awk -v d="$ino" -v s="$1" -v p="$2" '$1 == d && $4 == s && $5 == p' "$dir/names" | wc -l; }
is "$(names valid present) $(names valid absent)" "20 1" "names shows what is there and what is not"
is "$(awk -v d="$ino" '$2 == d && $4 == "valid"' "$dir/attrs" | wc -l)" 21 "attrs shows the directory's own and its files'"
rm "$T_DIR/e/dir/file7"
is "$(names valid present)" 19 "a name that another mount removed is recalled"
kill -STOP "$(cluster_pid d)"
expired() { [ "$(names valid present)" = 0 ] && [ "$(names expired present)" = 19 ]; }
try "and all expire when the lease does" wait_for 20 expired
kill -CONT "$(cluster_pid d)"
cluster_umount d
cluster_umount e
is "$(ls "$base" | grep -c "$(basename "$T_DIR")")" 0 "nothing is left"
cluster_end
done_testing
