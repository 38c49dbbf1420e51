#!/bin/bash
# The kernel module as it is delivered: `make kmod` signs it, with a signature that openssl verifies and that a change of one byte breaks; a kernel
# that insists on signatures tells it from an unsigned one, and a mount there says why and works; `make install-dkms` and DKMS of
# Debian 13 build, sign and install it.
# timeout: 900
# net: host
# shellcheck source=selftests/lib/tap.sh
. "$T_TOP/selftests/lib/tap.sh"
# shellcheck source=selftests/lib/cluster.sh
. "$T_TOP/selftests/lib/cluster.sh"
# shellcheck source=selftests/lib/vm.sh
. "$T_TOP/selftests/lib/vm.sh"
vm_need 7
vm_kmod 7
kernel=$(basename "$(dirname "$vm_module")")
root=$T_TOP/build/kmod/root

# ---- signed by hand
openssl req -new -x509 -newkey rsa:2048 -nodes -days 1 -subj "/CN=claudefs test" -keyout key.pem -out cert.pem -outform PEM >openssl.log 2>&1 ||
	skip_all "no openssl: $(tail -n 1 openssl.log)"
try "the module is built and signed" env KMOD_OUT="$T_DIR" SIGN_KEY="$T_DIR/key.pem" SIGN_CERT="$T_DIR/cert.pem" "$T_TOP/scripts/kmod.sh" "$kernel"
cat >split.py <<'END'
# split.py MODULE CONTENT SIGNATURE: kernel/module/signing.c: content, PKCS#7, 12 bytes that tell its length, a mark
import struct, sys
m = open(sys.argv[1], "rb").read()
mark = b"~Module signature appended~\n"
assert m.endswith(mark), "not signed"
info = m[-len(mark) - 12:-len(mark)]
assert info[2] == 2, "not PKCS#7"
n = struct.unpack(">I", info[8:])[0]
end = len(m) - len(mark) - 12
open(sys.argv[2], "wb").write(m[:end - n])
open(sys.argv[3], "wb").write(m[end - n:end])
END
try "it has the kernel's signature" python3 split.py "$kernel/claudefs_fuse.ko" content signature
verify() { openssl cms -verify -binary -inform DER -in signature -content "$1" -certfile cert.pem -noverify -nointern -out /dev/null; }
try "which is good" verify content
cmp -s content "$vm_module" && ok "for the module as it is without" || ok "for a module of its own build"
printf X | dd of=content bs=1 seek=5000 conv=notrunc status=none
fails "and not for one that was changed" verify content

# ---- DKMS
dkms_root() { # a root like the one that kernels' modules are built in, with dkms, which we may change
	mkdir -p up work merged
	local own=(-qq -o Dir::Etc::sourcelist="$T_TOP/build/kmod/apt/list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root
		-o Dir::State::Lists="$T_TOP/build/kmod/apt/lists" -o Dir::Cache="$T_DIR/apt" -o Dir::State::status="$T_TOP/build/kmod/apt/status"
		-o Debug::NoLocking=1)
	mkdir -p apt/archives/partial
	timeout 120 apt-get "${own[@]}" download dkms || return 1
	mount -t overlay -o "lowerdir=$root,upperdir=$T_DIR/up,workdir=$T_DIR/work" overlay merged || return 1
	cleanup umount -l "$T_DIR/merged"
	dpkg-deb --fsys-tarfile dkms_*.deb | tar -x -C merged --keep-directory-symlink
	make -s -C "$T_TOP" install-dkms DESTDIR="$T_DIR/merged"
}
in_root() {
	unshare -m -p -f --kill-child --root="$T_DIR/merged" --mount-proc=/proc /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C \
		timeout 600 "$@" </dev/null
}
if dkms_root >dkms.log 2>&1; then
	version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' "$T_TOP/bpf/kmod/dkms.conf")
	try "DKMS builds it" in_root dkms build "claudefs-fuse/$version" -k "$kernel"
	try "and installs it" in_root dkms install "claudefs-fuse/$version" -k "$kernel"
	ko=$(find "merged/usr/lib/modules/$kernel/updates" -name 'claudefs_fuse.ko*' 2>/dev/null)
	like "$ko" 'updates/dkms/claudefs_fuse\.ko' "where modprobe finds it"
	case $ko in
	*.xz) xz -dc "$ko" >dkms.ko ;;
	*.zst) in_root zstd -dc "${ko#merged}" >dkms.ko ;;
	*) cp "$ko" dkms.ko ;;
	esac
	try "signed with the machine's own key" python3 split.py dkms.ko content signature
	in_root dkms status
	try "and takes it away" in_root dkms remove "claudefs-fuse/$version" --all
else
	not_ok "DKMS of Debian 13 can be had" "$(tail -n 3 dkms.log)"
fi

# ---- a kernel that wants signatures
vm_tap --timeout 300 --append module.sig_enforce=1 --disk "$T_DIR/scratch,size=2G" -- "$T_TOP/selftests/vm/guest/signed.sh" "$vm_module" \
	"$T_DIR/$kernel/claudefs_fuse.ko"
done_testing
