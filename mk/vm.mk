# vm.mk: the test machine for people; test cases use selftests/lib/vm.sh.
.PHONY: vm-shell

vm-shell:					## a shell in the test machine: ARGS="--kernel 6.1 --nvme FILE,size=1G"
	@T_BIN=$(abspath $(O))/bin PATH=$(abspath $(O))/bin:$$PATH selftests/vm/machine/boot.sh $(ARGS) --shell
