#!/bin/bash
# gate_guest.sh MODULE [SCRATCH-OPTIONS]: runs in the test machine: an ordinary file on ext4, on a mount that passes it through by a gate (its
# cache is on that ext4), and on one that does not; then their ratios to ext4. It has no journal: what is compared is the way there.
# pass_min=0: of a file that is written in one stream and then read from the page cache too little is seen to take it otherwise.
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules fuse && guest_scratch scratch /mnt && cd /mnt && insmod "$1" || exit 1
shift
mkdir state pass plain files
"$T_BIN/claudefs" format --size 3G store.img >/dev/null &&
	"$T_BIN/claudefsd" --listen 127.0.0.1:9510 --target store.img --state-dir state --log-file server.log --daemon || exit 1
"$T_BIN/claudefs" mount 127.0.0.1:9510 pass -o cachedir=/mnt/cache1,passthrough=on,pass_min=0 || exit 1
"$T_BIN/claudefs" mount 127.0.0.1:9510 plain -o cachedir=/mnt/cache2,passthrough=off || exit 1
printf '%-24s %12s %12s %12s %8s %8s\n' "named files" ext4 passthrough plain pt/ext4 plain/e
"$T_BIN/scratch" -n "$@" files pass plain
"$T_BIN/claudefs" status --json pass | python3 -c "import json, sys
gates = json.load(sys.stdin)['tiers']['passthrough']
print(gates)
sys.exit(not gates['gate_files'] and 'no file went by a gate: these are no figures of one')" || rc=1
umount pass plain
exit ${rc-0}
