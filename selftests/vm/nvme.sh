#!/bin/bash
# The NVMe back end in the test machine: identification, formats refused, all kinds of requests on blocks of 512 and 4096
# bytes, polled rings, stores on plain and zoned namespaces, media errors by name.
# timeout: 900
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
# QEMU's own fault injection: reads of sector 40960 (20 MiB) fail
truncate -s 64M "$T_DIR/nbad"
printf '[inject-error]\nevent = "read_aio"\niotype = "read"\nsector = "40960"\nerrno = "5"\nonce = "off"\n' >"$T_DIR/blkdebug.conf"
vm_tap --timeout 600 --append "nvme_core.multipath=N nvme.poll_queues=1" \
	--nvme "$T_DIR/n512,size=1G,lba=512" --nvme "$T_DIR/n4k,size=1G,lba=4096,atomic=128K" \
	--nvme "$T_DIR/nzns,size=1G,lba=4096,zone=16M,cap=12M,open=8,active=8" \
	--qemu -drive --qemu "if=none,id=bad,format=raw,file=blkdebug:$T_DIR/blkdebug.conf:$T_DIR/nbad" \
	--qemu -device --qemu "nvme,drive=bad,serial=nbad,logical_block_size=512" \
	-- "$T_TOP/selftests/vm/guest/nvme.sh"
done_testing
