#!/bin/bash
# Every program and test program compiles and links without a warning, with gcc and with clang.
# timeout: 1800
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"

cd "$T_TOP" || exit 1
unset MAKEFLAGS MFLAGS MAKELEVEL
try "gcc" make VARIANT=release CC=gcc everything
try "clang" make VARIANT=release CC=clang everything
done_testing
