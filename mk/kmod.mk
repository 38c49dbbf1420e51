# kmod.mk: the kernel modules of the bpf and passthrough tiers (bpf/kmod), for the kernels of Debian 13. Not a part of `all`:
# it needs root, and the network once. SIGN_KEY= and SIGN_CERT= (PEM files) sign them. `install-dkms` leaves its
# sources to DKMS, which builds and signs it for every kernel the machine gets.
.PHONY: kmod install-dkms
kmod:						## the kernel modules of two tiers, for Debian 13's kernels
	@SIGN_KEY='$(SIGN_KEY)' SIGN_CERT='$(SIGN_CERT)' scripts/kmod.sh

DKMS_SRC := /usr/src/claudefs-fuse-$(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' bpf/kmod/dkms.conf)
install-dkms:					## the sources of those modules, for DKMS
	install -d $(DESTDIR)$(DKMS_SRC)
	install -m 644 bpf/kmod/claudefs_fuse.c bpf/kmod/claudefs_fuse.h bpf/kmod/claudefs_gate.c bpf/kmod/claudefs_gate.h \
		bpf/kmod/layout.c bpf/kmod/Makefile bpf/kmod/dkms.conf $(DESTDIR)$(DKMS_SRC)
	@echo "now: dkms install claudefs-fuse/$(notdir $(subst claudefs-fuse-,,$(DKMS_SRC)))"
