#!/usr/bin/env bash
# capture.sh [LAB]: takes the bytes in this folder from NVMe controllers that others wrote, QEMU's and the Linux kernel's
# target, in a guest under software emulation. About 15 s, and 15 s more the first time.
#
# LAB (default: a folder `captures-lab` beside the build's output) receives QEMU, nvme-cli and a kernel, unpacked from the
# Debian packages that this machine's apt knows where to find; nothing is installed. Needs apt, binutils, python3, xz.
# guest.sh is what runs in the guest; captures.rs, a folder up, states what the command line below makes true.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../../../target}
lab=${1:-$target/captures-lab}
mkdir -p "$lab" && lab=$(cd "$lab" && pwd)
suite=trixie

fetch() {
  local apt=$lab/apt root=$lab/root uri
  uri=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/*.sources | grep -v security | head -n1)
  mkdir -p "$apt"/etc/apt/{preferences.d,sources.list.d,apt.conf.d,trusted.gpg.d} \
    "$apt"/var/lib/{apt/lists/partial,dpkg} "$apt"/var/cache/apt/archives/partial "$root"/usr/{bin,sbin,lib,lib64}
  : >"$apt/var/lib/dpkg/status"
  for s in $suite $suite-backports; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $s main"
  done >"$apt/etc/apt/sources.list"
  cat >"$apt/apt.conf" <<CONF
Dir "$apt";
Dir::State::status "$apt/var/lib/dpkg/status";
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
  export APT_CONFIG=$apt/apt.conf
  apt-get -q update
  apt-get -y -q -t $suite-backports --download-only install \
    qemu-system-x86 seabios ipxe-qemu busybox-static nvme-cli libc6
  local version
  version=$(apt-cache pkgnames linux-binary- | sed -n 's/^linux-binary-\([0-9.]*+deb[0-9]*-amd64\)$/\1/p' | sort -V | tail -n1)
  (cd "$apt/var/cache/apt/archives" && apt-get -q download "linux-binary-$version" "linux-modules-$version")
  for l in bin sbin lib lib64; do ln -sfn "usr/$l" "$root/$l"; done
  for deb in "$apt"/var/cache/apt/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink
  done
  rm -f "$apt"/var/cache/apt/archives/*.deb
  # A bare kernel image boots faster here than the compressed one.
  python3 - "$(find "$root" -name 'vmlinuz*' -type f | head -n1)" "$lab/vmlinux" <<'PY'
import subprocess, sys
data = open(sys.argv[1], "rb").read()
for magic, unpack in ((b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"), (b"\x1f\x8b\x08", "gzip")):
    at = data.find(magic)
    while at >= 0:
        out = subprocess.run([unpack, "-dcq"], input=data[at:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        if out[:4] == b"\x7fELF":
            open(sys.argv[2], "wb").write(out)
            sys.exit()
        at = data.find(magic, at + 1)
sys.exit("no kernel in " + sys.argv[1])
PY
}

# Runs a program of the lab with the lab's libraries.
libs=$lab/root/usr/lib/x86_64-linux-gnu
in_lab() { "$lab/root/lib64/ld-linux-x86-64.so.2" --library-path "$libs:$libs/ceph:$libs/pulseaudio" "$@"; }

declare -A added
add_module() {
  local name=${1//-/_} file depends d
  [ -z "${added[$name]:-}" ] || return 0
  added[$name]=1
  file=$(find "$lab/root/usr/lib/modules" -regex ".*/${name//_/[-_]}\.ko\(\.xz\|\.zst\)?" | head -n1)
  [ -n "$file" ] || return 0 # built in
  case $file in *.xz) xz -dc "$file" ;; *.zst) zstd -dcq "$file" ;; *) cat "$file" ;; esac >"$guest/modules/$name.ko"
  depends=$(strings -n 8 "$guest/modules/$name.ko" | sed -n 's/^depends=//p' | head -n1)
  for d in ${depends//,/ }; do add_module "$d"; done
  echo "$name" >>"$guest/modules/order" # behind what it depends on
}

make_guest() {
  mkdir -p "$guest"/{bin,proc,sys,dev,tmp,run,etc/nvme,modules,lib64,lib/x86_64-linux-gnu,usr/bin}
  cp "$lab/root/usr/bin/busybox" "$guest/bin/busybox"
  cp "$lab/root/usr/sbin/nvme" "$guest/usr/bin/"
  in_lab --list "$lab/root/usr/sbin/nvme" | grep -o "$lab/[^ ]*\.so[^ ]*" | sort -u |
    while read -r l; do cp -L "$l" "$guest/lib/x86_64-linux-gnu/"; done
  cp -L "$lab/root/lib64/ld-linux-x86-64.so.2" "$guest/lib64/"
  for m in nvme null_blk nvmet nvme-loop; do add_module "$m"; done
  cp "$here/guest.sh" "$guest/init"
  chmod +x "$guest/init"
  (cd "$guest" && find . | bin/busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$work/initrd.gz"
}

[ -e "$lab/vmlinux" ] || fetch >"$lab/fetch.log" 2>&1 || { tail "$lab/fetch.log" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
guest=$work/guest
make_guest
for i in 0 1 2 3 4 5; do truncate -s 64M "$work/$i.img"; done

# What the test relies on. Controller 1 has a subsystem with namespaces of five kinds, controller 2 all defaults.
machine=(
  -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 1024 -display none -monitor none -net none -no-reboot
  -kernel "$lab/vmlinux" -initrd "$work/initrd.gz" -append "console=ttyS0 quiet iomem=relaxed"
  -serial "file:$work/console" -serial "file:$work/out"
  -device nvme-subsys,id=subsys,nqn=captures
  -device nvme,id=one,subsys=subsys,serial=DOORBELL-CAPTURE-1,model=Captured,firmware-version=1.2.3,mdts=5,vsl=6,max_ioqpairs=8,msix_qsize=9,mqes=1023,aerl=7,cmb_size_mb=2,addr=4
  -drive "file=$work/1.img,if=none,id=d1,format=raw"
  -device nvme-ns,drive=d1,bus=one,nsid=1,uuid=11111111-2222-3333-4444-555555555501,eui64=0x1122334455667701
  -drive "file=$work/2.img,if=none,id=d2,format=raw"
  -device nvme-ns,drive=d2,bus=one,nsid=2,logical_block_size=4096,physical_block_size=4096,uuid=11111111-2222-3333-4444-555555555502,nguid=0102030405060708090a0b0c0d0e0f02,mssrl=64,mcl=256,msrc=31,discard_granularity=65536,atomic.nawun=7,atomic.nawupf=3
  -drive "file=$work/3.img,if=none,id=d3,format=raw"
  -device nvme-ns,drive=d3,bus=one,nsid=5,logical_block_size=512,ms=8,pi=1,pil=1,uuid=11111111-2222-3333-4444-555555555505
  -drive "file=$work/4.img,if=none,id=d4,format=raw"
  -device nvme-ns,drive=d4,bus=one,nsid=6,logical_block_size=4096,physical_block_size=4096,ms=16,mset=1,pi=3,pif=2,uuid=11111111-2222-3333-4444-555555555506
  -drive "file=$work/5.img,if=none,id=d5,format=raw"
  -device nvme-ns,drive=d5,bus=one,nsid=9,zoned=on,zoned.zone_size=1M,shared=off,uuid=11111111-2222-3333-4444-555555555509
  -drive "file=$work/0.img,if=none,id=d0,format=raw"
  -device nvme,serial=DOORBELL-CAPTURE-2,drive=d0,addr=5
)
export QEMU_MODULE_DIR=$libs/qemu
share=$lab/root/usr/share
timeout 180 "$lab/root/lib64/ld-linux-x86-64.so.2" --library-path "$libs:$libs/pulseaudio" \
  "$lab/root/usr/bin/qemu-system-x86_64" -L "$share/qemu" -L "$share/seabios" -L "$lab/root/usr/lib/ipxe/qemu" "${machine[@]}"
mkdir "$work/bytes"
base64 -di "$work/out" | tar -xz -C "$work/bytes" || { cat "$work/console" >&2; exit 1; }
mv "$work/bytes/log" "$lab/guest.log"
rm -rf "$here/qemu" "$here/qemu-default" "$here/nvmet"
cp -r "$work/bytes"/. "$here/"
echo "captured from $(in_lab "$lab/root/usr/bin/qemu-system-x86_64" --version | head -n1) with $(cat "$here/versions" | tr '\n' ' ')"
