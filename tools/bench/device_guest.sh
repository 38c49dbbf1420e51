#!/bin/bash
# device_guest.sh rates ROUNDS | counts: the part of device.sh that runs in the test machine.
set -euo pipefail
# shellcheck source=selftests/lib/vm_guest.sh
. "$T_TOP/selftests/lib/vm_guest.sh"
guest_modules nvme
block=$(guest_drive bench) char=$(guest_drive bench char)
name=nvme:serial.bench.1 seconds=1
cd "$(mktemp -d)"

if [ "$1" = counts ]; then
	echo "instructions of the server's process, user and kernel, one at a time:"
	"$T_PROGS/devcheck" cost "$name"
	"$T_PROGS/devcheck" cost "$block"
	"$T_BIN/claudefs" device bench --json --seconds 0.1 "$name" >bench.json
	python3 - <<-'END'
		import json
		print(f"{'instructions of a request':36} {'back end':>9} {'bare':>9} {'block device':>13}")
		for l in json.load(open("bench.json"))["loads"]:
		    print(f"{l['load']:36}", *(f"{l[w]['cpu_ns']:{n}.0f}" for w, n in (("backend", 9), ("bare", 9), ("block", 13))))
	END
	exit
fi

job() { # NAME ENGINE FILE OPTION...: a job file of fio's
	{
		printf '[x]\nioengine=%s\nfilename=%s\nthread\ntime_based\nruntime=%s\nsize=512m\n' "$2" "$3" "$seconds"
		printf '%s\n' "${@:4}"
	} >"$1"
}
iops() { fio --output-format=terse --terse-version=3 "$1" | cut -d';' -f8; }
# fio reads the same bytes by NVMe commands from registered buffers, and through the block device
for load in "random bs=4k iodepth=32 rw=randread" "sequential bs=128k iodepth=16 rw=read"; do
	read -r what options <<<"$load"
	# shellcheck disable=SC2086 # one option a word
	job "$what.cmd" io_uring_cmd "$char" cmd_type=nvme fixedbufs=1 registerfiles=1 $options
	# shellcheck disable=SC2086
	job "$what.block" io_uring "$block" direct=1 $options
done
for ((i = 0; i < $2; i++)); do
	"$T_BIN/claudefs" device bench --json --seconds "$seconds" "$name" >bench.json
	python3 - "$(iops random.cmd)" "$(iops random.block)" "$(iops sequential.cmd)" "$(iops sequential.block)" >>rounds <<-'END'
		import json, sys
		loads = json.load(open("bench.json"))["loads"]
		f = [float(x) for x in sys.argv[1:]]
		for load, cmd, block in (loads[1], f[0], f[1]), (loads[2], f[2], f[3]):
		    own = load["backend"]["per_second"]
		    if not cmd or not block:    # on a busy host a second may pass before fio has begun
		        print(load["load"], "left out: fio did nothing in its time", file=sys.stderr)
		        continue
		    print(load["load"], own, own / cmd, own / block, own / load["bare"]["per_second"], sep="\t")
	END
done
python3 - <<-'END'
	import statistics
	rows = [l.rstrip("\n").split("\t") for l in open("rounds")]
	print(f"{'medians of the rounds':36} {'requests/s':>11} {'/fio cmd fixed':>15} {'/fio block':>11} {'/bare':>7}")
	for load in dict.fromkeys(r[0] for r in rows):
	    m = [statistics.median(float(r[i]) for r in rows if r[0] == load) for i in range(1, 5)]
	    print(f"{load:36} {m[0]:11.0f} {m[1]:15.2f} {m[2]:11.2f} {m[3]:7.2f}")
END
