# sim.mk: the simulator listens in on every log entry that a replica applies (selftests/sim/witness.c).
$(SIM): LDFLAGS_ALL += -Wl,--wrap=cfs_meta_apply
