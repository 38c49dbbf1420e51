#!/bin/bash
# A cluster of one on two NVMe namespaces, with blocks of 4096 and of 512 bytes, in the test machine: real programs on the mount,
# kill -9 of the server, drives that are pulled and put back.
# timeout: 900
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
vm_tap --timeout 800 --append "nvme_core.multipath=N" --disk "$T_DIR/scratch,size=2G" \
	--nvme "$T_DIR/n512,size=1G,lba=512" --nvme "$T_DIR/n4k,size=1G,lba=4096,atomic=128K" \
	-- "$T_TOP/selftests/vm/guest/nvme_cluster.sh"
done_testing
