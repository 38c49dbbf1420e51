#!/bin/bash
# device.sh (`make bench-device`): the NVMe back end in the test machine (software emulation: only ratios and counts mean
# anything), beside fio on the same drive, through the same kernel driver and through the block device.
#
#   device.sh [ROUNDS]
#
# First boot: in each round, one right after the other, the back end, fio's io_uring_cmd engine with registered buffers,
# and fio's io_uring with O_DIRECT on the block device; the medians of the rounds' ratios. Second boot: the machine's clock
# counts instructions (QEMU's -icount), so that the processor's time per operation is their number.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1-7}
export T_TOP=$PWD T_BIN=${T_BIN:-$PWD/build/release/bin} T_PROGS=${T_PROGS:-$PWD/build/release/selftests/progs}
boot=selftests/vm/machine/boot.sh
dir=$(mktemp -d "$PWD/build/bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
run() { "$boot" --timeout 900 --append nvme_core.multipath=N --nvme "$dir/bench,size=512M,lba=4096,atomic=128K" "$@"; }
run -- tools/bench/device_guest.sh rates "$rounds"
VM_ACCEL=tcg,thread=single run --cpus 1 --qemu -icount --qemu shift=0,sleep=off -- tools/bench/device_guest.sh counts
