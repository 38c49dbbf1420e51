#!/bin/bash
# check-includes.sh [TREE]: the include graph runs one way,
#	include <- user <- { server, client } <- tools,
# and bpf sees include only; selftests may include anything, and nobody else includes selftests. Server and
# client never meet. Each violation is printed as file:line, and so is a quoted include that names no file.
# Includes resolve as the compiler does: beside the including file, then -I. -Iinclude -Iuser.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

declare -A may=(
	[include]=" include " [user]=" include user " [bpf]=" include bpf "
	[server]=" include user server bpf " [client]=" include user client bpf "
	[tools]=" include user server client bpf tools "
	[selftests]=" include user server client bpf tools selftests ")
bad=0 seen=0
directive='include[[:space:]]*(["<])([^">]+)[">]'
areas=()
for area in "${!may[@]}"; do [ ! -d "$area" ] || areas+=("$area"); done
[ ${#areas[@]} -gt 0 ] || { echo "check-includes: no sources in $PWD" >&2; exit 2; }

while IFS=: read -r file line text; do
	seen=$((seen + 1)) target=
	[[ $text =~ $directive ]] || continue # a macro
	quote=${BASH_REMATCH[1]} name=${BASH_REMATCH[2]}
	dirs=(./ include/ user/)
	[ "$quote" = '<' ] || dirs=("${file%/*}/" "${dirs[@]}")
	for dir in "${dirs[@]}"; do
		[ ! -f "$dir$name" ] || { target=$(realpath -m --relative-to=. "$dir$name"); break; }
	done
	if [ -z "$target" ]; then
		case $quote$name in
		'<'* | *.skel.h | *vmlinux.h | *fuse_layout.h) continue ;; # the system's, or generated
		esac
		echo "$file:$line: includes \"$name\", which is in none of: ${dirs[*]}"
	elif [[ ${may[${file%%/*}]} = *" ${target%%/*} "* ]]; then
		continue
	else
		echo "$file:$line: ${file%%/*} must not include ${target%%/*}: $name"
	fi
	bad=$((bad + 1))
done < <(grep -rnE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include' "${areas[@]}" || true)

[ "$bad" = 0 ] || { echo "check-includes: $bad of $seen includes run the wrong way" >&2; exit 1; }
echo "check-includes: $seen includes, all one way"
