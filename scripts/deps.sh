#!/bin/bash
# deps.sh [test]: brings a fresh Debian 12 to where ClaudeFS builds (and, with "test", where its tests run).
#
# What the distribution has and is new enough comes from its packages. liburing, libfuse, libbpf and raft
# do not, so they are built as static libraries, from Debian *source* packages of newer suites, into
# build/deps. Those suites are read through apt lists of our own below build/dl: the system's lists, its
# suites and its libc stay as they are. apt's signatures vouch for every source. Nothing is built twice:
# build/deps/stamp-libs holds the hash of the part of this script that builds libraries, stamp-packages* that of
# all of it: another package makes nobody build libraries again.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH=$PATH:/usr/sbin:/sbin

packages=(gcc make clang libclang-rt-dev libc6-dev linux-libc-dev meson ninja-build pkg-config dpkg-dev
	ca-certificates liblmdb-dev libisal-dev libcmocka-dev libinih-dev libjansson-dev libxxhash-dev libnuma-dev
	libelf-dev zlib1g-dev libattr1-dev libacl1-dev libnvme-dev libblkid-dev acl attr scdoc fuse3)
optional=(clang-19 bpftool)             # BPF programs want them; absent on other releases
test_packages=(sqlite3 postgresql rsync fio stress-ng git tar util-linux procps iproute2 e2fsprogs xfsprogs btrfs-progs attr dmsetup
	python3)

dl=$PWD/build/dl prefix=$PWD/build/deps
stamp=$prefix/stamp-packages
case ${1-} in
'') ;;
test) packages+=("${test_packages[@]}") stamp=$prefix/stamp-packages-test ;;
*) echo "usage: scripts/deps.sh [test]" >&2; exit 2 ;;
esac
hash=$(sha256sum <scripts/deps.sh)
libs_hash=$(sed -n '/^# ---- static libraries/,$p' scripts/deps.sh | sha256sum)
say() { echo "deps: $*"; }
die() { echo "deps: $*" >&2; exit 1; }

net=(-qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=2
	-o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
own=(-o Dir::Etc::sourcelist="$dl/apt/list" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$dl/apt/lists"
	-o Dir::Cache="$dl/apt/cache" -o APT::Sandbox::User=root)
missing() { # the packages of "$@" that are not installed
	comm -13 <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
		sed -n 's/^installed //p' | sort) <(printf '%s\n' "$@" | sort)
}
libraries_done() { [ "$(cat "$prefix/stamp-libs" 2>/dev/null)" = "$libs_hash" ] && [ -s "$prefix/deps.mk" ]; }
done_already() {
	[ "$(cat "$stamp" 2>/dev/null)" = "$hash" ] && libraries_done && [ -z "$(missing "${packages[@]}")" ]
}

done_already && { touch "$prefix/deps.mk"; exit 0; }
mkdir -p "$dl/apt/lists/partial" "$dl/apt/cache/archives/partial" "$prefix/lib"
exec 9>"$dl/lock"
flock -w 900 9 || die "another deps.sh has held $dl/lock for 15 minutes: gave up"
done_already && { touch "$prefix/deps.mk"; exit 0; }

# ---- packages of the distribution ----------------------------------------------------------------------
install_packages() {
	local want p made_policy=
	mapfile -t want < <(missing "${packages[@]}")
	if [ ${#want[@]} -gt 0 ]; then
		[ "$(id -u)" = 0 ] || die "must be root to install: ${want[*]}"
		timeout 200 apt-get "${net[@]}" update || say "warning: apt-get update failed, trying with the lists at hand"
	fi
	for p in "${optional[@]}"; do
		if [ "$(id -u)" = 0 ] && [ "$(missing "$p")" ] && apt-cache show "$p" >/dev/null 2>&1; then want+=("$p"); fi
	done
	[ ${#want[@]} -gt 0 ] || return 0
	say "installing ${#want[@]} packages of the distribution"
	if [ ! -e /usr/sbin/policy-rc.d ]; then # no package may start a service
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod +x /usr/sbin/policy-rc.d
		made_policy=1
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	if [[ " ${want[*]} " == *" postgresql "* ]]; then # ... nor create a database cluster
		apt_install postgresql-common
		sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	fi
	apt_install "${want[@]}"
	if [ "$made_policy" ]; then rm -f /usr/sbin/policy-rc.d; trap - EXIT; fi
}
apt_install() {
	timeout 1800 apt-get "${net[@]}" install -y --no-install-recommends --no-remove "$@" >"$dl/install.log" 2>&1 </dev/null ||
		{ tail -n 5 "$dl/install.log" >&2; die "apt-get install failed (registry not answering?), see $dl/install.log"; }
}

# ---- static libraries from sources -----------------------------------------------------------------------
# shellcheck disable=SC2016 # apt expands it
source_lists() { # our own lists of source packages, from the mirror the machine already uses
	local mirror ask=(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' 'Created-By: Packages')
	[ -n "$("${ask[@]}")" ] || timeout 200 apt-get "${net[@]}" update || true
	mirror=$("${ask[@]}" | head -n 1)
	[ -n "$mirror" ] || die "apt has no package lists of Debian: the registry did not answer, or /etc/apt names none"
	for suite in trixie sid; do
		echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
	done >"$dl/apt/list"
	timeout 200 apt-get "${net[@]}" "${own[@]}" update ||
		say "warning: the Debian registry did not answer in full, trying with the lists at hand"
}

# library NAME SOURCE MIN SYSTEM_MIN: builds NAME with build_NAME from the newest source >= MIN that builds,
# unless the system has >= SYSTEM_MIN.
library() {
	local name=$1 source=$2 min=$3 system_min=$4 version
	if pkg-config --atleast-version="$system_min" "$name"; then say "$name: the system's own will do"; return; fi
	for version in $(apt-cache "${own[@]}" showsrc --only-source "$source" | sed -n 's/^Version: //p' | sort -Vru); do
		dpkg --compare-versions "$version" ge "$min" || continue
		rm -rf "${dl:?}/$name"
		if (cd "$dl" && timeout 600 apt-get "${net[@]}" "${own[@]}" source --only-source -d "$source=$version" &&
			dpkg-source --no-check -x "${source}_${version#*:}.dsc" "$name" &&
			cd "$name" && export PKG_CONFIG_PATH=$prefix/lib/pkgconfig && set -x && "build_$name") >"$dl/$name.log" 2>&1; then
			say "$name $version"
			return
		fi
		say "$name $version could not be fetched or built ($dl/$name.log), trying an older one"
	done
	tail -n 3 "$dl/$name.log" >&2 2>/dev/null || true
	die "no source of $name >= $min could be had: did the registry answer?"
}
jobs=$(nproc)
build_liburing() { # its install makes the shared library too unless told not to, and then that one wins
	./configure --prefix="$prefix" --libdir="$prefix/lib" --includedir="$prefix/include" &&
		make -C src -j"$jobs" ENABLE_SHARED=0 && make ENABLE_SHARED=0 -C src install && make liburing.pc &&
		install -Dm644 liburing.pc "$prefix/lib/pkgconfig/liburing.pc"
}
build_fuse3() { # the custom-io switch is newer than 3.17, where it is always on
	local custom=
	if grep -q enable-custom-io meson_options.txt; then custom=-Denable-custom-io=true; fi
	meson setup b --prefix="$prefix" --libdir=lib --buildtype=release --debug -Ddefault_library=static -Dutils=false \
		-Dexamples=false -Dtests=false -Duseroot=false $custom && ninja -C b && meson install -C b --no-rebuild
}
build_libbpf() {
	make -C src -j"$jobs" BUILD_STATIC_ONLY=1 PREFIX="$prefix" LIBDIR="$prefix/lib" install install_uapi_headers
}
build_raft() { # the core and its test fixture only: no libuv, no lz4; with the v0 API (struct raft_io)
	sed 's/@enable_v0@/yes/' include/raft.h.in >include/raft.h &&
		find src -name '*.c' ! -name 'uv*' -print0 | xargs -0 -n 4 -P "$jobs" gcc -std=gnu11 -O2 -g -fPIC -DV0_ENABLED -c &&
		ar rcs libraft.a ./*.o && install -Dm644 libraft.a "$prefix/lib/libraft.a" &&
		install -Dm644 include/raft.h "$prefix/include/raft.h" &&
		install -Dm644 include/raft/fixture.h "$prefix/include/raft/fixture.h" &&
		printf 'Name: raft\nDescription: Raft, core only\nVersion: %s\nLibs: -L%s -lraft\nCflags: -I%s\n' \
			"$(sed -n 's/^AC_INIT(\[raft\], \[\(.*\)\])/\1/p' configure.ac)" "$prefix/lib" "$prefix/include" \
			>"$prefix/lib/pkgconfig/raft.pc"
}

# ---- what the Makefile includes ------------------------------------------------------------------------------
write_deps_mk() { # whole paths of the static libraries, so that no shared one of the system can win
	local name archive cflags="-isystem build/deps/include -isystem build/deps/include/fuse3" libs=
	for name in fuse3 liburing libbpf raft; do
		archive=build/deps/lib/lib${name#lib}.a
		if [ -e "$archive" ]; then
			libs+=" $archive"
		else
			cflags+=" $(pkg-config --cflags "$name")" libs+=" $(pkg-config --libs "$name")"
		fi
	done
	printf 'DEPS_CFLAGS := %s\nDEPS_LIBS :=%s\n' "$cflags" "$libs" >"$prefix/deps.mk"
}

install_packages
if ! libraries_done; then
	say "building liburing, libfuse, libbpf and raft (about a minute)"
	rm -rf "${prefix:?}/include" "${prefix:?}/lib"
	mkdir -p "$prefix/lib/pkgconfig"
	source_lists
	library libbpf libbpf 1.5 1.5 & pids=($!)
	library raft raft 0.22 0.22 & pids+=($!)
	# A distribution's libfuse leaves fuse_session_custom_io() out, so ours is built in any case.
	(library liburing liburing 2.9 2.9 && library fuse3 fuse3 3.17 999) & pids+=($!)
	for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
	[ -z "${failed-}" ] || die "not all libraries could be built, see above"
	nm "$prefix/lib/libfuse3.a" 2>/dev/null | grep -q ' T fuse_uring_start$' ||
		say "warning: this libfuse came out WITHOUT io_uring: mounts will use /dev/fuse only"
	grep -q '^struct raft_io$' "$prefix/include/raft.h" 2>/dev/null || [ ! -e "$prefix/lib/libraft.a" ] ||
		die "this raft has no struct raft_io, the interface the server is written to"
	write_deps_mk
	echo "$libs_hash" >"$prefix/stamp-libs"
fi
echo "$hash" >"$stamp"
touch "$prefix/deps.mk"
say "ready: $(cd "$prefix" && echo lib/*.a)"
