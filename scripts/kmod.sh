#!/bin/bash
# kmod.sh [KERNEL]: builds bpf/kmod for each kernel in build/kmod/kernels, or this one, in the root that kmod-root.sh
# makes: build/kmod/KERNEL/claudefs_fuse.ko and claudefs_gate.ko. SIGN_KEY= and SIGN_CERT=, PEM files, sign the modules. KMOD_OUT=DIR: DIR/KERNEL/... instead.
set -euo pipefail
cd "$(dirname "$0")/.."
want=${1-}
scripts/kmod-root.sh ${want:+"$want"}
root=$PWD/build/kmod/root
sources=(bpf/kmod/claudefs_fuse.c bpf/kmod/claudefs_fuse.h bpf/kmod/claudefs_gate.c bpf/kmod/claudefs_gate.h bpf/kmod/layout.c bpf/kmod/Makefile)
sum=$(cat "${sources[@]}" scripts/kmod.sh build/kmod/stamp ${SIGN_KEY:+"$SIGN_KEY" "$SIGN_CERT"} | sha256sum)
exec 9>build/kmod/lock
flock -w 900 9 || { echo "kmod: another build has held build/kmod/lock for 15 minutes: gave up" >&2; exit 1; }
[ -z "$want" ] || grep -qxF -e "$want" build/kmod/kernels || { echo "kmod: build/kmod has no headers of $want" >&2; exit 1; }
while read -r kernel; do
	[ -z "$want" ] || [ "$kernel" = "$want" ] || continue
	final=${KMOD_OUT:-build/kmod}/$kernel
	[ "$(cat "$final/stamp" 2>/dev/null)" != "$sum" ] || continue
	out=$final.new # somebody may be booting with the old one
	src=/src/$kernel
	rm -rf "${root:?}$src" "$out"
	mkdir -p "$root$src" "$out"
	cp "${sources[@]}" "$root$src/"
	sign=()
	if [ "${SIGN_KEY-}" ]; then
		cp "$SIGN_KEY" "$root$src/key.pem"
		cp "$SIGN_CERT" "$root$src/cert.pem"
		sign=(SIGN_KEY=key.pem SIGN_CERT=cert.pem)
	fi
	# /proc in namespaces of its own, since objtool wants it: nothing stays mounted
	if ! unshare -m -p -f --kill-child --root="$root" --mount-proc=/proc /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C timeout 600 \
		make -C "$src" -j"$(nproc)" KDIR="/usr/src/linux-headers-$kernel" "${sign[@]}" >"$out/log" 2>&1 </dev/null; then
		tail -n 15 "$out/log" >&2
		echo "kmod: the modules for $kernel could not be built, see $out/log" >&2
		exit 1
	fi
	cp "$root$src"/claudefs_{fuse,gate}.ko "$out/"
	rm -rf "${root:?}$src"
	echo "$sum" >"$out/stamp"
	rm -rf "$final"
	mv "$out" "$final"
	echo "kmod: $final/claudefs_{fuse,gate}.ko" >&2
done <build/kmod/kernels
