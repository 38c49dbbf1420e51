# bpf.mk: bpf/X.bpf.c -> $(B)/bpf/X.bpf.o (clang-19) -> $(B)/bpf/X.skel.h (bpftool), for #include "X.skel.h".
#
# One form serves every VARIANT and compiler, and every kernel: what the programs need of the kernel's structures is in
# bpf/kernel.h, and is fitted to the running kernel when they are loaded (CO-RE). Where clang-19 or bpftool are missing the
# rest is built without: CFS_HAVE_BPF is 0, and the programs say so.
#
# Debian 12's bpftool (7.1) leaves ".struct_ops.link" out of a skeleton, with a note; the loader, libbpf of build/deps, does not:
# bpf_object__find_map_by_name(skel->obj, ...), bpf_map__initial_value() and bpf_map__attach_struct_ops() reach it.
BPF_CLANG ?= $(shell command -v clang-19)
BPFTOOL ?= $(shell PATH=$$PATH:/usr/sbin:/sbin command -v bpftool)

SRC_bpf := $(wildcard bpf/*.bpf.c)
BPF_ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(shell uname -m)))
BPF_FLAGS = -target bpf -mcpu=v3 -std=gnu11 -O2 -g -ffreestanding -D__TARGET_ARCH_$(BPF_ARCH) \
	-Wall -Wextra -Wshadow -Wno-unused-parameter -Werror -I. -Iinclude $(DEPS_CFLAGS) \
	$(addprefix -idirafter ,$(wildcard /usr/include/$(shell uname -m)-linux-gnu))

ifneq ($(and $(BPF_CLANG),$(BPFTOOL)),)
SKELETONS := $(patsubst bpf/%.bpf.c,$(B)/bpf/%.skel.h,$(SRC_bpf))
CPPFLAGS_ALL += -DCFS_HAVE_BPF=1 -I$(B)/bpf
else
SKELETONS :=
CPPFLAGS_ALL += -DCFS_HAVE_BPF=0
ifneq ($(filter-out $(no_deps),$(or $(MAKECMDGOALS),all)),)
ifeq ($(MAKELEVEL),0)
$(info bpf: built without BPF programs: $(if $(BPF_CLANG),,clang-19 )$(if $(BPFTOOL),,bpftool ) not found)
endif
endif
endif

$(B)/bpf/%.bpf.o: bpf/%.bpf.c build/deps/stamp-libs mk/bpf.mk
	$(call say,BPF,$<)
	$(Q)mkdir -p $(@D) && $(BPF_CLANG) $(BPF_FLAGS) -MMD -MP -c $< -o $@

# Generated code need not keep our warnings; as a system header it is not asked. Written at one go: variants share it.
$(B)/bpf/%.skel.h: $(B)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	$(Q){ echo '#pragma GCC system_header'; $(BPFTOOL) gen skeleton $< name $*_bpf 2>$@.log || { cat $@.log >&2; false; }; } \
		>$@.$$$$ && mv $@.$$$$ $@

-include $(SKELETONS:.skel.h=.bpf.d)
$(OBJECTS): | $(SKELETONS)
.SECONDARY: $(SKELETONS) $(SKELETONS:.skel.h=.bpf.o)
