# device.mk: the bench of the NVMe back end, in the test machine
.PHONY: bench-device
bench-device: everything			## the NVMe back end against fio, in the test machine; ROUNDS=n
	@T_BIN=$(abspath $(O)/bin) T_PROGS=$(abspath $(O)/selftests/progs) tools/bench/device.sh $(ROUNDS)
