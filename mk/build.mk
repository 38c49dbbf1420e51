# build.mk: from sources to objects, libraries and programs, all below $(O).
#
#   user/**        -> libclaudefs.a      server/** but main.c -> libcfs_server.a
#   selftests/lib  -> libcfs_test.a      client/** but main.c -> libcfs_client.a
#   server/main.c  -> bin/claudefsd      tools/claudefs/**    -> bin/claudefs, bin/mount.claudefs
#   tools/bench/X.c -> bin/X             docs/man/X.N.scd     -> man/X.N, in $(B)
#   selftests/unit/**/X.c -> selftests/unit/**/X (cmocka)     selftests/sim/** -> selftests/sim/sim
#   selftests/progs/X.c   -> selftests/progs/X                selftests/fuzz/X.c -> selftests/fuzz/X

# ---- flags ------------------------------------------------------------------------------------------------
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
# Empty, not 1: a source that defines _GNU_SOURCE itself then says the same.
CPPFLAGS_ALL = -D_GNU_SOURCE= -D_FILE_OFFSET_BITS=64 -I. -Iinclude -Iuser $(DEPS_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL = -std=gnu11 $(WARN) -g -fno-omit-frame-pointer -pthread $(FLAGS_$(VARIANT)) $(CFLAGS)
LDFLAGS_ALL = -pthread $(filter -fsanitize=%,$(FLAGS_$(VARIANT))) -Wl,--as-needed $(LDFLAGS)
LDLIBS_ALL = $(DEPS_LIBS) -llmdb -lisal -linih -ljansson -lnuma -lnvme -lblkid -lelf -lz -ldl -lm $(LDLIBS)

FLAGS_release := -O2
FLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_tsan := -O1 -fsanitize=thread
FLAGS_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
ifeq ($(FLAGS_$(VARIANT)),)
$(error VARIANT=$(VARIANT): must be release, asan, tsan or fuzz)
endif
ifeq ($(findstring clang,$(CC))$(filter release,$(VARIANT)),) # gcc's guess is often wrong under sanitizers
CFLAGS_ALL += -Wno-maybe-uninitialized
endif

# ---- sources ----------------------------------------------------------------------------------------------
find_c = $(if $(wildcard $(1)),$(sort $(shell find $(1) -name '*.c')))
obj = $(patsubst %.c,$(O)/obj/%.o,$(1))

SRC_claudefs := $(call find_c,user)
SRC_server := $(filter-out server/main.c,$(call find_c,server))
SRC_client := $(filter-out client/main.c,$(call find_c,client))
SRC_test := $(call find_c,selftests/lib)
SRC_cli := $(call find_c,tools/claudefs)
SRC_sim := $(call find_c,selftests/sim)
SRC_unit := $(call find_c,selftests/unit)
SRC_progs := $(call find_c,selftests/progs)
SRC_fuzz := $(call find_c,selftests/fuzz)
SRC_bench := $(wildcard tools/bench/*.c)
SRC_main := $(wildcard server/main.c)

LIB_claudefs := $(O)/libclaudefs.a
LIB_server := $(O)/libcfs_server.a
LIB_client := $(O)/libcfs_client.a
LIB_test := $(O)/libcfs_test.a
LIBS := $(LIB_test) $(LIB_client) $(LIB_server) $(LIB_claudefs)

# ---- what is made -----------------------------------------------------------------------------------------
CLAUDEFSD := $(if $(SRC_main),$(O)/bin/claudefsd)
CLI := $(if $(wildcard tools/claudefs/main.c),$(O)/bin/claudefs)
PROGRAMS := $(CLAUDEFSD) $(CLI) $(addsuffix /bin/mount.claudefs,$(if $(CLI),$(O)))
BENCHES := $(patsubst tools/bench/%.c,$(O)/bin/%,$(SRC_bench))
UNITS := $(patsubst %.c,$(O)/%,$(SRC_unit))
PROGS := $(patsubst %.c,$(O)/%,$(SRC_progs))
SIM := $(if $(SRC_sim),$(O)/selftests/sim/sim)
FUZZERS := $(patsubst %.c,$(O)/%,$(SRC_fuzz))
MANPAGES := $(patsubst docs/man/%.scd,$(B)/man/%,$(wildcard docs/man/*.scd))
TEST_PROGRAMS := $(UNITS) $(PROGS) $(SIM)
ifeq ($(VARIANT),fuzz) # here main() is libFuzzer's, and only its targets make sense
PROGRAMS :=
BENCHES :=
TEST_PROGRAMS := $(FUZZERS)
endif

# ---- rules ------------------------------------------------------------------------------------------------
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))
link = $(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(filter %.o,$^) $(filter $(O)/%.a,$^) $(1) $(LDLIBS_ALL) -o $@

OBJECTS := $(call obj,$(SRC_claudefs) $(SRC_server) $(SRC_client) $(SRC_test) $(SRC_cli) $(SRC_sim) $(SRC_unit) \
	$(SRC_progs) $(SRC_fuzz) $(SRC_bench) $(SRC_main))
-include $(OBJECTS:.o=.d)

$(O)/obj/%.o: %.c build/deps/stamp-libs mk/build.mk
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c $< -o $@
build/deps/stamp-libs: ;

# An archive is made anew, and also when its list of objects changes: a deleted source must not live on in it.
# `q` and not `r`: two objects may have the same base name.
$(LIB_claudefs): $(call obj,$(SRC_claudefs))
$(LIB_server): $(call obj,$(SRC_server))
$(LIB_client): $(call obj,$(SRC_client))
$(LIB_test): $(call obj,$(SRC_test))
$(LIBS): $(O)/%.a: $(O)/%.list
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar qcs $@ $(filter %.o,$^)
$(O)/libclaudefs.list: LIST = $(SRC_claudefs)
$(O)/libcfs_server.list: LIST = $(SRC_server)
$(O)/libcfs_client.list: LIST = $(SRC_client)
$(O)/libcfs_test.list: LIST = $(SRC_test)
$(O)/%.list: FORCE
	@mkdir -p $(@D); [ "$$(cat $@ 2>/dev/null)" = "$(LIST)" ] || echo "$(LIST)" >$@
FORCE:

$(O)/bin/claudefsd: $(call obj,$(SRC_main)) $(LIB_server) $(LIB_claudefs)
	$(call say,LD,$@)
	$(call link)
$(O)/bin/claudefs: $(call obj,$(SRC_cli)) $(LIB_client) $(LIB_server) $(LIB_claudefs)
	$(call say,LD,$@)
	$(call link)
$(O)/bin/mount.claudefs: $(O)/bin/claudefs
	$(Q)ln -sfn claudefs $@
$(BENCHES): $(O)/bin/%: $(O)/obj/tools/bench/%.o $(LIB_client) $(LIB_claudefs)
	$(call say,LD,$@)
	$(call link)
$(UNITS) $(PROGS): $(O)/%: $(O)/obj/%.o $(LIBS)
	$(call say,LD,$@)
	$(call link,-lcmocka -lacl)
$(SIM): $(call obj,$(SRC_sim)) $(LIBS)
	$(call say,LD,$@)
	$(call link,-lcmocka)
$(FUZZERS): $(O)/%: $(O)/obj/%.o $(LIBS)
	$(call say,LD,$@)
	$(call link,-fsanitize=fuzzer)

$(B)/man/%: docs/man/%.scd
	$(call say,MAN,$@)
	$(Q)mkdir -p $(@D) && scdoc <$< >$@

.SECONDARY: $(OBJECTS)
.PHONY: FORCE
