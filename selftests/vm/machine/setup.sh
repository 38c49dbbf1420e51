#!/bin/bash
# setup.sh PART...: makes sure that parts of the test machine are there, below build/dl/vm (or $VM_CACHE).
#
#   qemu        QEMU of trixie-backports (11 or newer, for atomic writes above a block) beside trixie's libc
#   guest       tools that the host need not have: a static busybox, kmod, zstd, mke2fs
#   7 6.1 ...   the newest kernel of that series in Debian's suites, with modules and an initial ramdisk
#
# All of it comes from Debian, through apt lists of our own and under apt's signatures; packages are unpacked,
# nothing is installed, the system's lists stay as they are. Each part lies in a directory with its version in
# its name, to which PART is a symbolic link; a part that is there is used without asking the registry. About
# 180 MB for qemu and one kernel. Version that cannot be had: the next older one is tried, three in all.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export LC_ALL=C
vm=${VM_CACHE:-$PWD/build/dl/vm}
tries=3 # versions of a kernel, newest first
format=1 # goes up when the layout of a part changes
say() { echo "vm: $*" >&2; }
die() { say "$*"; exit 1; }

have() { [ "$(cat "$vm/$1/format" 2>/dev/null)" = "$format" ]; }
have_all() {
	local part
	for part in "$@"; do have "$part" || return 1; done
}
[ $# -gt 0 ] || { sed -n 2,7p "$0" >&2; exit 2; }
[ "$(uname -m)" = x86_64 ] || die "the test machine is an x86_64 one, this is $(uname -m)"
have_all "$@" && exit 0

mkdir -p "$vm/apt/lists/partial" "$vm/apt/cache/archives/partial"
vm=$(cd "$vm" && pwd -P)
exec 9>"$vm/lock"
flock -w 900 9 || die "another setup.sh has held $vm/lock for 15 minutes: gave up"
new=$vm/new # the part being made
trap 'rm -rf "$new"' EXIT

net=(-qq -o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
own=(-o Dir::Etc::sourcelist="$vm/apt/list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$vm/apt/lists"
	-o Dir::Cache="$vm/apt/cache" -o Dir::State::status="$vm/apt/status" -o APT::Sandbox::User=root
	-o APT::Architecture=amd64 -o Debug::NoLocking=1 -o APT::Install-Recommends=false)
lists_done=
lists() { # reads the package lists, once
	local mirror suite ask
	[ -z "$lists_done" ] || return 0
	# shellcheck disable=SC2016 # apt expands it
	ask='$(REPO_URI)'
	mirror=$(apt-get indextargets --format "$ask" 'Label: Debian' 'Created-By: Packages' | head -n 1)
	mirror=${VM_MIRROR:-$mirror}
	[ -n "$mirror" ] || die "apt has no package lists of Debian: run apt-get update, or set VM_MIRROR"
	for suite in bullseye bookworm trixie trixie-backports; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
	done >"$vm/apt/list"
	: >"$vm/apt/status"
	timeout 200 apt-get "${net[@]}" "${own[@]}" update >"$vm/apt/log" 2>&1 ||
		say "warning: the registry did not answer in full ($(grep -m 1 '^[EW]:' "$vm/apt/log" || true))"
	lists_done=1
}
download() { # DIR PACKAGE...: each alone, without what it depends on
	local dir=$1
	shift
	(cd "$dir" && timeout 600 apt-get "${net[@]}" "${own[@]}" download "$@" >>"$vm/apt/log" 2>&1)
}
unpack() { # DIR DEB...: with bin, sbin and lib below usr, as the guest's root has them
	local dir=$1 deb d
	shift
	for deb in "$@"; do dpkg-deb -x "$deb" "$dir"; rm "$deb"; done
	for d in bin sbin lib lib64; do
		if [ -d "$dir/$d" ] && [ ! -L "$dir/$d" ]; then
			mkdir -p "$dir/usr/$d"
			cp -a "$dir/$d/." "$dir/usr/$d/"
			rm -r "${dir:?}/$d"
		fi
		[ ! -d "$dir/usr/$d" ] || ln -sfn "usr/$d" "$dir/$d"
	done
}
finish() { # PART VERSION: what stands in $new becomes that part
	local dir=$1-${2//[:\/]/_}
	echo "$format" >"$new/format"
	rm -rf "${vm:?}/$dir"
	mv "$new" "$vm/$dir"
	ln -sfn "$dir" "$vm/$1"
	say "$1 $2"
}

make_qemu() {
	local debs=$vm/apt/cache/archives version
	rm -f "$debs"/*.deb
	version=$(apt-cache "${own[@]}" show qemu-system-x86/trixie-backports 2>/dev/null | sed -n 's/^Version: //p' | head -n 1)
	[ -n "$version" ] || die "trixie-backports has no qemu-system-x86: did the registry answer?"
	say "fetching QEMU $version and the libraries beside it (about 70 MB)"
	timeout 900 apt-get "${net[@]}" "${own[@]}" install -y -d qemu-system-{x86,common,data}/trixie-backports \
		seabios/trixie-backports >>"$vm/apt/log" 2>&1 ||
		die "QEMU could not be fetched: $(grep -m 1 '^E:' "$vm/apt/log" || echo "see $vm/apt/log")"
	unpack "$new" "$debs"/*.deb
	finish qemu "$version"
}

make_guest() {
	mkdir "$new/debs"
	download "$new/debs" {busybox-static,kmod,libkmod2,zstd,e2fsprogs,libext2fs2,libcom-err2,libss2}/bookworm ||
		die "the guest's tools could not be fetched: $(grep '^E:' "$vm/apt/log" | tail -n 1)"
	unpack "$new" "$new"/debs/*.deb
	rmdir "$new/debs"
	finish guest bookworm
}
tool() { # NAME ARGUMENT...: one of the guest's tools; depmod and modprobe are names of kmod
	local name=$1 program=$1
	shift
	case $name in depmod | modprobe) program=kmod ;; esac
	(export LD_LIBRARY_PATH=$vm/guest/usr/lib/x86_64-linux-gnu
	exec -a "$name" "$vm/guest/usr/bin/$program" "$@")
}

make_kernel() { # SERIES
	local version packages n=0
	for version in $(apt-cache "${own[@]}" search --names-only "^linux-image-${1//./\\.}\\.[0-9a-z.+-]*-amd64\$" |
		sed -n 's/^linux-image-\([^ ]*\) .*/\1/p' | grep -vE -e '-(rt|cloud)-' | sort -Vr | head -n "$tries"); do
		n=$((n + 1))
		rm -rf "$new"
		mkdir -p "$new/debs"
		# Newer kernels are split over several packages.
		packages=$(apt-cache "${own[@]}" depends --no-recommends --no-suggests --no-conflicts --no-breaks \
			"linux-image-$version" | grep -oE 'Depends: linux-[a-z]+-.*' | cut -d' ' -f2 | grep -F -e "-$version" || true)
		say "fetching the kernel $version (about 110 MB)"
		# shellcheck disable=SC2086 # a list
		if download "$new/debs" "linux-image-$version" $packages; then
			unpack "$new" "$new"/debs/*.deb
			rmdir "$new/debs"
			build_kernel "$version"
			finish "$1" "$version"
			return 0
		fi
		say "kernel $version cannot be had: $(grep '^E:' "$vm/apt/log" | tail -n 1)"
	done
	die "no kernel of the series $1 could be had ($n tried): did the registry answer?"
}
build_kernel() { # VERSION: from the packages to what QEMU boots
	local image=$new/boot/vmlinuz-$1 setup_sectors offset length n=0 m
	[ -e "$image" ] || image=$new/usr/lib/modules/$1/vmlinuz
	[ -e "$image" ] || die "the packages of kernel $1 hold no image"
	# Booting the uncompressed kernel (by PVH) saves its decompression under emulation. Header: Linux/x86 boot protocol.
	setup_sectors=$(od -An -tu1 -j $((0x1f1)) -N1 "$image")
	offset=$(od -An -tu4 -j $((0x248)) -N4 "$image")
	length=$(od -An -tu4 -j $((0x24c)) -N4 "$image")
	tail -c "+$(((setup_sectors + 1) * 512 + offset + 1))" "$image" | head -c $((length - 4)) >"$new/payload" || true
	case $(od -An -tx1 -N4 "$new/payload" | tr -d ' ') in
	28b52ffd) tool zstd -dcq <"$new/payload" ;;
	fd377a58) xz -dc --single-stream <"$new/payload" ;;
	*) die "kernel $1 is compressed in a way not known here" ;;
	esac >"$new/vmlinux"
	rm "$new/payload"
	tool depmod -b "$new" "$1" 2>>"$vm/apt/log"
	# The modules that mount the root file system, in the order of their dependencies.
	mkdir -p "$new"/initrd/{bin,m,proc,sys,dev,l,rw,new}
	for m in virtio_pci virtio_console 9pnet_virtio 9p overlay; do
		tool modprobe -d "$new" -S "$1" --show-depends "$m" >>"$new/order" || die "kernel $1 has no module $m"
	done
	for m in $(awk '$1 == "insmod" && !seen[$2]++ {print $2}' "$new/order"); do
		n=$((n + 1))
		case $m in
		*.xz) xz -dc "$m" ;;
		*.zst) tool zstd -dcq "$m" ;;
		*) cat "$m" ;;
		esac >"$new/initrd/m/$(printf %02d $n).ko"
	done
	cp "$vm/guest/usr/bin/busybox" "$new/initrd/bin/"
	(cd "$new/initrd" && find . | "$vm/guest/usr/bin/busybox" cpio -o -H newc 2>/dev/null) >"$new/initrd.cpio"
	rm -r "$new/initrd" "$new/order"
}

for part in "$@"; do
	[ "$part" = guest ] || [ "$part" = qemu ] || have guest || set -- guest "$@" # kernels need its tools
done
for part in "$@"; do
	! have "$part" || continue
	lists
	rm -rf "$new"
	mkdir "$new"
	case $part in
	qemu) make_qemu ;;
	guest) make_guest ;;
	[5-9] | [5-9].*) make_kernel "$part" ;;
	*) die "no part of the test machine is called '$part'" ;;
	esac
done
