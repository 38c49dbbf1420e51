#!/bin/bash
# boot.sh [OPTION...] -- SCRIPT [ARGUMENT...]: boots a Debian kernel in QEMU (software emulation) over this
# machine's root file system, runs SCRIPT in it as root, and ends with its exit status.
#
#   --kernel SERIES   7 (default), 6.12, 6.1 ...: the newest that Debian has of it, see setup.sh
#   --mem SIZE        memory (2G)                    --cpus N       processors (2)
#   --timeout SECONDS then it is killed (300)        --append TEXT  more of the kernel's command line
#   --share DIR       writable at /share in the guest, and DIR outlives it
#   --disk FILE[,size=1G][,lba=512|4096][,cache=unsafe][,log=FILE]       a virtio disk
#   --nvme FILE[,size=1G][,lba=512|4096][,atomic=128K][,zone=16M[,cap=12M][,open=8][,active=8]][,cache=unsafe]
#                     an NVMe drive, with ZNS zones if "zone" is given; its serial number is FILE's last part.
#                     FILE is made, sparse, when it is not there. cache: QEMU's word; log: see README.md
#   --restarts        the guest may restart (sysrq b): SCRIPT runs again, drives go on as they are. Without, that is its end
#   --icount          the guest's clock counts instructions: its times can be compared, whatever the host does besides
#   --qemu ARGUMENT   one more argument of QEMU      --log FILE     where the guest's kernel log goes
#   --shell           no SCRIPT: a shell on this terminal, without a time limit
#
# The guest's root is the host's, read only, below a tmpfs: what it writes is gone afterwards. There is no
# network but its own loopback. SCRIPT finds $T_TOP, $T_BIN, $T_PROGS, any other T_* and $PATH as they are here, but
# no $T_DIR. Its output is ours; the kernel's log goes to a file, its end is shown when the guest dies.
# Ends with: SCRIPT's status; 124 when time was up; 125 when the guest ended before SCRIPT did; 126 when the
# machine's parts cannot be had; 143 when we got SIGTERM, which cuts the guest's power at once.
# Environment: VM_ACCEL (tcg,thread=multi), VM_CPU (max,la57=off), VM_CACHE (build/dl/vm).
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
vm=${VM_CACHE:-$top/build/dl/vm}
die() { echo "vm: $*" >&2; exit 126; }
usage() { sed -n 2,26p "$0" >&2; exit 2; }

accel=${VM_ACCEL:-tcg,thread=multi}
kernel=7 mem=2G cpus=2 limit=300 append='' share='' log='' shell='' restarts='' drives=0 devices=()

bytes() { numfmt --from=iec "$1" || die "not a size: '$1'"; }
add_drive() { # virtio|nvme FILE,KEY=VALUE...
	local kind=$1 file=${2%%,*} rest pair id=d$drives ns
	local size=1G lba=512 cache=unsafe log='' zone='' cap='' open=0 active=0 atomic='' node
	rest=${2#"$file"}
	while [ "$rest" ]; do
		rest=${rest#,} pair=${rest%%,*}
		rest=${rest#"$pair"}
		case ${pair%%=*} in
		size | lba | cache | log | zone | cap | open | active | atomic) local "${pair%%=*}=${pair#*=}" ;;
		*) die "drive '$2': '$pair' is not known" ;;
		esac
	done
	[ -e "$file" ] || truncate -s "$size" "$file" || die "cannot make $file"
	node=file=$file,format=raw,cache=$cache,discard=unmap
	if [ "$log" ]; then # each write and flush goes there as well, in their order
		: >"$log" || die "cannot make $log"
		# The flushes must get as far as this filter; beyond it they only take the time in which power may go.
		node=driver=blklogwrites,cache.no-flush=off,log-sector-size=512,discard=unmap
		node+=,file.driver=raw,file.file.driver=file,file.file.filename=$file,file.cache.no-flush=off,file.discard=unmap
		node+=,log.driver=file,log.filename=$log,log.cache.no-flush=on
	fi
	devices+=(-drive "if=none,id=$id,$node")
	drives=$((drives + 1))
	if [ "$kind" = virtio ]; then
		devices+=(-device "virtio-blk-pci,drive=$id,serial=${file##*/},logical_block_size=$lba,physical_block_size=$lba")
		return
	fi
	ns=nvme-ns,drive=$id,bus=n$id,nsid=1,shared=off,logical_block_size=$lba,physical_block_size=$lba
	if [ "$atomic" ]; then atomic=$(($(bytes "$atomic") / lba - 1)); fi
	[ -z "$atomic" ] || ns+=,atomic.nawun=$atomic,atomic.nawupf=$atomic
	[ -z "$zone" ] || ns+=,zoned=true,zoned.zone_size=$zone,zoned.zone_capacity=${cap:-$zone},zoned.max_open=$open,zoned.max_active=$active
	devices+=(-device "nvme,id=n$id,serial=${file##*/}${atomic:+,atomic.awun=$atomic,atomic.awupf=$atomic}" -device "$ns")
}

while [ $# -gt 0 ]; do
	case $1 in
	--shell) shell=1; shift; continue ;;
	--restarts) restarts=1; shift; continue ;;
	--icount) accel=tcg,thread=single devices+=(-icount shift=1,sleep=on); shift; continue ;;
	--) shift; break ;;
	--*) [ $# -ge 2 ] || usage ;;
	*) break ;;
	esac
	case $1 in
	--kernel) kernel=$2 ;;
	--mem) mem=$2 ;;
	--cpus) cpus=$2 ;;
	--timeout) limit=$2 ;;
	--append) append+=" $2" ;;
	--share) share=$2 ;;
	--log) log=$2 ;;
	--disk) add_drive virtio "$2" ;;
	--nvme) add_drive nvme "$2" ;;
	--qemu) devices+=("$2") ;;
	*) usage ;;
	esac
	shift 2
done
if [ "$shell" ]; then
	set -- "$here/shell"
	limit=0
fi
[ $# -gt 0 ] || usage
[ -f "$1" ] || die "no script '$1'"
[ -z "$share" ] || [ -d "$share" ] || die "no directory '$share' to share"

"$here/setup.sh" qemu guest "$kernel" || die "the test machine cannot be had, see above"
release=$(basename "$vm/$kernel"/usr/lib/modules/*)
qemu=$(cd "$vm/qemu" && pwd -P)
lib=$qemu/usr/lib/x86_64-linux-gnu
busybox=$vm/guest/usr/bin/busybox

work=$(mktemp -d "${T_DIR:-${TMPDIR:-/tmp}}/vm.XXXXXX") || die "no place for temporary files"
machine='' # the process that runs QEMU; the latter dies with it, and both with us
power_off() {
	[ -z "$machine" ] || { kill -KILL "$machine" && wait "$machine"; } 2>/dev/null
	while [ -e "$work/pid" ] && [ -d "/proc/$(cat "$work/pid")" ]; do sleep 0.02; done # its files are closed
	rm -rf "$work"
}
trap power_off EXIT
trap 'exit 143' TERM INT HUP
log=${log:-$work/kernel.log}

# ---- the job: a second initial ramdisk --------------------------------------------------------------------
mkdir -p "$work/i/job"
cp "$here/init" "$work/i/init"
cp "$here/pid1" "$work/i/job/pid1"
cp "$1" "$work/i/job/script"
chmod +x "$work/i/job/script"
script=$1
shift
shares=() tags=''
for dir in "$vm/$kernel" "$vm/guest" /; do
	tags+=" l${#shares[@]}"
	shares+=(-virtfs "local,path=$(cd "$dir" && pwd -P),mount_tag=l${#shares[@]},security_model=none,readonly=on,multidevs=remap")
done
[ -z "$share" ] ||
	shares+=(-virtfs "local,path=$(cd "$share" && pwd -P),mount_tag=share,security_model=none,multidevs=remap")
{
	printf 'TAGS=%q SHARE=%q SHELL_WANTED=%q RESTARTS=%q\n' "${tags# }" "$share" "$shell" "$restarts"
	printf 'export T_TOP=%q PATH=%q TERM=%q\n' "$top" "$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
		"${TERM-dumb}"
	for name in "${!T_@}"; do
		case $name in T_TOP | T_DIR | T_RUN | T_ISOLATED) ;; *) printf 'export %s=%q\n' "$name" "${!name}" ;; esac
	done
	printf 'ARGUMENTS='
	printf '%q' "$(printf '%q ' "$@")"
	printf '\n'
} >"$work/i/job/env"
(cd "$work/i" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$work/job.cpio" || die "no initial ramdisk"
cat "$vm/$kernel/initrd.cpio" "$work/job.cpio" >"$work/initrd"

# A guest that is done restarts, which ends QEMU; one that may restart switches itself off.
ends=(-no-reboot)
[ -z "$restarts" ] || ends=(-action reboot=reset)

# ---- the machine --------------------------------------------------------------------------------------------
deathsig=(setpriv --pdeathsig KILL)
"${deathsig[@]}" timeout --foreground -s KILL "$limit" "${deathsig[@]}" \
	"$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$qemu/usr/bin/qemu-system-x86_64" \
	-L "$qemu/usr/share/qemu" -L "$qemu/usr/share/seabios" -pidfile "$work/pid" \
	-M q35 -accel "$accel" -cpu "${VM_CPU:-max,la57=off}" -smp "$cpus" -m "$mem" \
	-nodefaults -no-user-config -display none "${ends[@]}" -nic none -serial "file:$log" \
	-device virtio-serial-pci -chardev stdio,id=c0,signal=off -device virtconsole,chardev=c0 \
	-chardev "file,id=c1,path=$work/status" -device virtconsole,chardev=c1 \
	"${shares[@]}" "${devices[@]}" -kernel "$vm/$kernel/vmlinux" -initrd "$work/initrd" \
	-append "console=ttyS0 panic=-1 mitigations=off nokaslr random.trust_cpu=on tsc=reliable no_timer_check quiet loglevel=4$append" \
	<"$([ "$shell" ] && echo /dev/stdin || echo /dev/null)" &
machine=$!
wait "$machine"
rc=$?
machine=''
rm -f "$work/pid"
status=$(sed -n 's/^status=\([0-9]*\).*/\1/p' "$work/status" 2>/dev/null)
[ -z "$status" ] || exit "$status"
if [ "$rc" = 137 ]; then
	echo "vm: killed after $limit s: $script on $release; its kernel log ends:" >&2
	rc=124
else
	echo "vm: the guest ended before $script did (QEMU: $rc) on $release; its kernel log ends:" >&2
	rc=125
fi
fatal='Oops: |BUG: |Kernel panic'
if grep -qE "$fatal" "$log"; then sed -nE "/$fatal/,\$p" "$log" | head -n 40; else tail -n 20 "$log"; fi >&2
# The kernel patches its text behind breakpoints, tells all CPUs, and takes them away. With a thread for each CPU, QEMU now and then
# runs one that is not there any more; then nobody knows it.
if [ "$rc" = 125 ] && grep -q 'Oops: int3' "$log" && [ -d "${T_DIR-}" ]; then
	echo "the emulator ran a breakpoint that the guest's kernel had taken away" >"$T_DIR/again"
fi
exit "$rc"
