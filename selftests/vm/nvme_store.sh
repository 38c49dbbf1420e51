#!/bin/bash
# The store's own tests on real NVMe drives: the same programs and assertions as selftests/unit/server/store, with namespaces of
# 512 and of 4096 byte blocks and with a zoned one below the model (selftests/lib/realdev.h). Power cuts are made
# by the model and put on the drive. Usually the journal's tests on one, the others on another; T_LONG=1: everything on each.
# timeout: 1700
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
export T_UNIT=${T_PROGS%/progs}/unit/server/store
vm_tap --timeout $((${T_LONG:-0} ? 4000 : 1600)) --append nvme_core.multipath=N \
	--nvme "$T_DIR/u512,size=256M,lba=512" --nvme "$T_DIR/u4k,size=256M,lba=4096,atomic=128K" \
	--nvme "$T_DIR/uzns,size=1280M,lba=4096,zone=16M,cap=12M,open=8,active=8" -- "$T_TOP/selftests/vm/guest/nvme_store.sh"
done_testing
