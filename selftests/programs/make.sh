#!/bin/bash
# Building libclaudefs.a in a mount with make -j2: compilers, archives, time stamps; nothing is built twice.
# timeout: 300
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
command -v make >/dev/null || skip_all "no make"
command -v cc >/dev/null || skip_all "no cc"

cluster_start
cluster_mount a
cluster_mount b
src=$T_DIR/a/src
mkdir "$src"
try "the sources go into the mount" sh -c "cd '$T_TOP' && tar -cf - Makefile mk include user bpf scripts | tar -xf - -C '$src'"
mkdir "$src/build"
ln -s "$T_TOP/build/deps" "$src/build/deps"
unset MAKEFLAGS MAKELEVEL B VARIANT
make() { command make --no-print-directory B=build "$@"; }
cd "$src" || exit 1
try "make -j2" timeout 200 make -j2 build/release/libclaudefs.a
is "$(ar t build/release/libclaudefs.a | wc -l)" "$(find user -name '*.c' | wc -l)" "every object is in the archive"
like "$(make build/release/libclaudefs.a 2>&1)" "up to date|^$" "the second time there is nothing to do"
cd "$T_DIR/b/src" || exit 1
like "$(make build/release/libclaudefs.a 2>&1)" "up to date|^$" "neither is there, seen on the other mount"
touch user/base/log.c
like "$(make V=1 build/release/libclaudefs.a 2>&1)" "log.c" "a touched source is compiled again"
cmp -s build/release/obj/user/base/log.o "$T_DIR/a/src/build/release/obj/user/base/log.o" && ok "both mounts have the same object" || not_ok "both mounts have the same object"
cat >hello.c <<-'END'
	#include <stdio.h>
	int main(void) { return puts("hello") < 0; }
END
is "$(cc -o hello hello.c && ./hello && "$T_DIR/a/src/hello")" hello$'\n'hello "a program that was linked here runs, on both mounts"
cd "$T_DIR" || exit 1
cluster_end
done_testing
