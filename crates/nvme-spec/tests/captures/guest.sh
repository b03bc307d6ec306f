#!/bin/busybox sh
# The guest's init: asks each controller for everything, and sends the answers out of the second serial port.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin LD_LIBRARY_PATH=/lib/x86_64-linux-gnu
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /out/qemu /out/qemu-default /out/nvmet
exec 2>/out/log
while read -r m; do insmod "/modules/$m.ko"; done </modules/order
mount -t configfs config /sys/kernel/config
settle() { i=0; while [ ! -e "$1" ] && [ $i -lt 200 ]; do sleep 0.1; i=$((i + 1)); done; }
settle /dev/nvme1n1

by_serial() { for c in /sys/class/nvme/nvme*; do grep -q "$1" "$c/serial" && echo "/dev/$(basename "$c")"; done; }

# identify DEV FILE CNS [NSID [CSI]], log DEV FILE LID LENGTH [NSID]: the bytes, or no file where the controller refuses.
identify() {
  nvme admin-passthru "$1" --opcode=0x06 --cdw10="$3" --namespace-id="${4:-0}" --cdw11="$((${5:-0} << 24))" \
    --data-len=4096 --read --raw-binary >"$2" || rm -f "$2"
}
log() { nvme get-log "$1" --log-id="$3" --log-len="$4" --namespace-id="${5:-0xffffffff}" --raw-binary >"$2" || rm -f "$2"; }

# What every controller has.
common() {
  dev=$1 to=$2
  identify "$dev" "$to/id-ctrl" 1
  identify "$dev" "$to/list-ns" 2
  identify "$dev" "$to/list-ctrl" 0x13
  identify "$dev" "$to/nvm-id-ctrl" 6
  identify "$dev" "$to/command-sets" 0x1c
  log "$dev" "$to/supported-log-pages" 0 1024 0
  log "$dev" "$to/error-log" 1 256
  log "$dev" "$to/smart-log" 2 512
  log "$dev" "$to/fw-log" 3 512
  log "$dev" "$to/changed-ns-log" 4 4096
  log "$dev" "$to/effects-log" 5 4096
  for f in 1 2 4 5 6 7 8 9 10 11 15 0x19; do
    case $f in 5) ns=1 ;; *) ns=0 ;; esac
    nvme get-feature "$dev" --feature-id=$f --namespace-id=$ns
    nvme get-feature "$dev" --feature-id=$f --namespace-id=$ns --sel=3
  done | grep get-feature >"$to/features"
  nvme get-feature "$dev" --feature-id=0x0e --data-len=8 --raw-binary >"$to/feature-timestamp" || rm -f "$to/feature-timestamp"
  nvme get-feature "$dev" --feature-id=0x16 --data-len=512 --raw-binary >"$to/feature-host-behavior" || rm -f "$to/feature-host-behavior"
}
namespace() {
  dev=$1 to=$2 nsid=$3
  identify "$dev" "$to/id-ns-$nsid" 0 "$nsid"
  identify "$dev" "$to/ns-descs-$nsid" 3 "$nsid"
  identify "$dev" "$to/nvm-id-ns-$nsid" 5 "$nsid" 0
  identify "$dev" "$to/independent-id-ns-$nsid" 8 "$nsid"
}
# Registers 0 to 6Fh, by dwords.
registers() {
  pci=$(basename "$(readlink -f "/sys/class/nvme/$(basename "$1")/device")")
  base=$(head -n1 "/sys/bus/pci/devices/$pci/resource" | cut -d' ' -f1)
  o=0
  while [ $o -lt 112 ]; do
    v=$(devmem $((base + o)) 32)
    printf "$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((v & 255)) $((v >> 8 & 255)) $((v >> 16 & 255)) $((v >> 24 & 255)))"
    o=$((o + 4))
  done >"$2/registers"
}
# Commands that fail, and with what: what was tried, then nvme-cli's line about the status.
failures() {
  dev=$1 ns=$2
  try() { echo "$1: $(shift; "$@" 2>&1 | grep -i 'nvme status')"; }
  try lba-out-of-range nvme io-passthru "$ns" --opcode=2 --namespace-id=1 --cdw11=1 --data-len=512 --read
  try invalid-namespace nvme admin-passthru "$dev" --opcode=6 --namespace-id=777 --data-len=4096 --read
  try invalid-opcode nvme admin-passthru "$dev" --opcode=0xbf
  try invalid-log-page nvme admin-passthru "$dev" --opcode=2 --cdw10=0x7f0066 --data-len=512 --read
  try not-changeable nvme set-feature "$dev" --feature-id=9 --value=0 --save
  try invalid-queue nvme admin-passthru "$dev" --opcode=0 --cdw10=77
  try compare-failure nvme io-passthru "$ns" --opcode=5 --namespace-id=1 --data-len=512 --write --input-file=/bin/busybox
}

one=$(by_serial DOORBELL-CAPTURE-1)
common "$one" /out/qemu
for n in 1 2 5 6 9; do namespace "$one" /out/qemu $n; done
registers "$one" /out/qemu
failures "$one" "${one}n1" >/out/qemu/failures
two=$(by_serial DOORBELL-CAPTURE-2)
common "$two" /out/qemu-default
namespace "$two" /out/qemu-default 1
registers "$two" /out/qemu-default

# The kernel's target over its loop transport: it has reservations.
target=/sys/kernel/config/nvmet
mkdir "$target/subsystems/captures" "$target/subsystems/captures/namespaces/3" "$target/ports/1"
cd "$target/subsystems/captures"
echo 1 >attr_allow_any_host
echo CAPTURE >attr_serial
echo "Captured target" >attr_model
echo -n /dev/nullb0 >namespaces/3/device_path
echo 11111111-2222-3333-4444-555555555503 >namespaces/3/device_uuid
echo 01020304-0506-0708-090a-0b0c0d0e0f03 >namespaces/3/device_nguid
echo 1 >namespaces/3/resv_enable
echo 1 >namespaces/3/enable
echo loop >"$target/ports/1/addr_trtype"
ln -s "$target/subsystems/captures" "$target/ports/1/subsystems/captures"
cd /
id=11111111-2222-3333-4444-5555555555
nvme connect --transport=loop --nqn=captures --hostnqn=nqn.2014-08.org.nvmexpress:uuid:${id}aa --hostid=${id}aa >&2
i=0; while [ -z "$(by_serial CAPTURE$)" ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
loop=$(by_serial '^CAPTURE *$')
common "$loop" /out/nvmet
namespace "$loop" /out/nvmet 3
ns=$(echo "$loop"n?); settle "$ns"
# report FILE EXTENDED
report() {
  nvme io-passthru "$ns" --opcode=0x0e --namespace-id=3 --cdw10=63 --cdw11="$2" --data-len=256 --read --raw-binary >"$1" || rm -f "$1"
}
report /out/nvmet/resv-report-none 1
nvme resv-register "$ns" --namespace-id=3 --nrkey=0x1234567890abcdef --rrega=0 >&2
nvme resv-acquire "$ns" --namespace-id=3 --crkey=0x1234567890abcdef --rtype=3 --racqa=0 >&2
report /out/nvmet/resv-report 1
log "$loop" /out/nvmet/resv-notification-log 0x80 64 0

{ uname -r; nvme version | head -n1; } >/out/versions
cd /out
tar -cz . | base64 >/dev/ttyS1
sync
poweroff -f
