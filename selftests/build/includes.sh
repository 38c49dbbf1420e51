#!/bin/bash
# The include graph of this tree runs one way, and check-includes.sh sees each kind of arrow that does not.
# parallel: yes
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"

check() { "$T_TOP/scripts/check-includes.sh" "$@" 2>&1; }
put() { mkdir -p "tree/$(dirname "$1")" && printf '%s\n' "${@:2}" >"tree/$1"; }
refuses() { # FILE INCLUDE WHAT: a tree with this one bad line is refused, by file and line
	put "$1" '#include <stdio.h>' "$2"
	local out
	if out=$(check tree); then not_ok "$3" "accepted: $2"; else like "$out" "^$1:2: " "$3"; fi
	rm "tree/$1"
}

try "this tree" check
put include/claudefs/wire.h '#pragma once'
put user/base/log.h '#include <claudefs/wire.h>' '#include <string.h>'
put user/base/log.c '#include "log.h"' '#include "base/log.h"' '#  include "claudefs/wire.h"'
put server/store/store.h '#include "base/log.h"'
put server/main.c '#include "server/store/store.h"' '#include "probe.skel.h"' '#include HEADER'
put client/fs.h '#include "base/log.h"'
put tools/claudefs/main.c '#include "client/fs.h"' '#include "server/store/store.h"'
put selftests/lib/cluster.h '#include "server/store/store.h"' '#include "client/fs.h"'
try "a tree in which all run the right way" check tree
refuses include/claudefs/bad.h '#include "base/log.h"' "include must not include user"
refuses user/base/bad.c '#include "server/store/store.h"' "user must not include server"
refuses user/base/bad.c '#include "../../client/fs.h"' "nor client, on whatever path"
refuses server/bad.c '#include "client/fs.h"' "server must not include client"
refuses client/bad.c '#	include <server/store/store.h>' "client must not include server, in angle brackets either"
refuses client/bad.h '#include "selftests/lib/cluster.h"' "only selftests include selftests"
refuses server/bad.c '#include "base/nowhere.h"' "a quoted include that names no file"
put server/one.c '#include "client/fs.h"'
put client/two.c '#include "server/store/store.h"'
is "$(check tree | grep -cE '^(server/one.c|client/two.c):1: ')" 2 "all violations are reported, not the first alone"
done_testing
