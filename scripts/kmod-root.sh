#!/bin/bash
# kmod-root.sh [KERNEL]: a root with the compiler and the headers that kernel modules for Debian 13 need.
#
# The kernel module (bpf/kmod) must be compiled by the suite its kernel comes from: Debian 12's gcc and pahole are
# too old for it. So the packages of that suite are fetched by apt, with lists and a cache of our own, and unpacked
# (not installed: no maintainer script runs) into build/kmod/root, where `make kmod` works in a chroot. The host's
# lists, packages and libc stay as they are. About 130 MB are fetched and 700 MB unpacked, once; every download
# has a time limit. It has the headers of the newest kernel of trixie's own series and of its backports, and of KERNEL, a
# release such as 6.12.5+deb13-amd64; one that is not there yet is added to what is. build/kmod/kernels names them all: a
# kernel never leaves it, so that several may ask for kernels of their own at the same time.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH=$PATH:/usr/sbin:/sbin

tools=(bash dash coreutils sed grep mawk findutils diffutils gzip xz-utils zstd perl-base make gcc-14 binutils pahole bpftool
	kmod openssl libelf1t64 base-files libc-bin)
work=$PWD/build/kmod root=$PWD/build/kmod/root
say() { echo "kmod-root: $*" >&2; }
die() { echo "kmod-root: $*" >&2; exit 1; }

hash=$(sha256sum <scripts/kmod-root.sh)
want=${1-}
complete() { [ "$(cat "$work/stamp" 2>/dev/null)" = "$hash" ]; }
ready() { complete && { [ -z "$want" ] || grep -qxF -e "$want" "$work/kernels"; }; }
! ready || exit 0
[ "$(id -u)" = 0 ] || die "must be root: modules are built in a chroot"
mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
exec 9>"$work/lock"
flock -w 900 9 || die "another kmod-root.sh has held $work/lock for 15 minutes: gave up"
! ready || exit 0

# shellcheck disable=SC2016 # apt expands it
ask=(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 'Created-By: Packages')
mirror=$("${ask[@]}" | head -n 1)
[ -n "$mirror" ] || die "apt has no package lists of Debian: run apt-get update"
for suite in trixie trixie-backports; do
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
done >"$work/apt/list"
: >"$work/apt/status"
own=(-qq -o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20
	-o Dir::Etc::sourcelist="$work/apt/list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$work/apt/lists"
	-o Dir::Cache="$work/apt/cache" -o Dir::State::status="$work/apt/status" -o APT::Sandbox::User=root
	-o Debug::NoLocking=1)
timeout 200 apt-get "${own[@]}" update || die "the Debian registry did not answer"

all=$(apt-cache "${own[@]}" search --names-only '^linux-headers-[0-9.]*[+]deb1.-amd64$' | sed 's/ .*//; s/^linux-headers-//' |
	sort -V)
headers=() packages=()
add() { # RELEASE
	[ -n "$1" ] && grep -qxF -e "$1" <<<"$all" || die "no kernel headers of ${1:-6.12} in trixie or its backports"
	[[ " ${headers[*]} " == *" $1 "* ]] || headers+=("$1")
}
if ! complete; then
	packages=("${tools[@]}")
	add "$(grep '^6\.12\.' <<<"$all" | tail -n 1)"
	add "$(tail -n 1 <<<"$all")"
fi
[ -z "$want" ] || add "$want"
say "fetching a compiler and headers of ${headers[*]}"
for release in "${headers[@]}"; do packages+=("linux-headers-$release"); done
timeout 900 apt-get "${own[@]}" install -y -d --no-install-recommends "${packages[@]}" >"$work/apt.log" 2>&1 </dev/null ||
	{ tail -n 5 "$work/apt.log" >&2; die "could not fetch the packages, see $work/apt.log"; }

if ! complete; then
	rm -rf "$root" "$work/kernels"
	mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/usr/lib64" "$root/tmp" "$root/dev" "$root/proc" "$root/src"
	for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$root/$dir"; done
	mknod -m 666 "$root/dev/null" c 1 3
fi
for deb in "$work"/apt/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink; done
ln -sf gcc-14 "$root/usr/bin/gcc"
ln -sf mawk "$root/usr/bin/awk"
[ -e "$root/usr/bin/sh" ] || ln -s dash "$root/usr/bin/sh"
chroot "$root" ldconfig
printf '%s\n' "${headers[@]}" >>"$work/kernels"
rm -f "$work"/apt/cache/archives/*.deb
echo "$hash" >"$work/stamp"
say "ready: $(du -sh "$root" | cut -f1) in build/kmod/root"
