#: machine served
#: limit 120
# A reset of the subsystem takes both controllers down, says so in their registers, and loses nothing.
. /lib/guest/served.sh
give "$one" nvme
give "$two" nvme
disk=$(disk "$two" 1)
head -c 65536 /dev/urandom >/tmp/data
dd if=/tmp/data of="$disk" bs=4096 conv=fsync oflag=direct
# csts FUNCTION: its status register, which the kernel's driver keeps for itself while it has the function.
csts() {
  echo "$1" >"$pci/devices/$1/driver/unbind"
  echo 1 >"$pci/devices/$1/enable"
  devmem $(($(head -n 1 "$pci/devices/$1/resource" | cut -d ' ' -f 1) + 0x1c)) 32
}
nvme subsystem-reset "$(controller "$two")"
for function in "$two" "$one"; do
  csts=$(csts "$function")
  note "CSTS of $function: $csts"
  [ $((csts & 0x11)) = $((0x10)) ] || fail "no subsystem reset occurred at $function, or it is ready: CSTS is $csts"
done
give "$two" nvme
give "$one" nvme
dd if="$(disk "$one" 1)" of=/tmp/found bs=4096 count=16 iflag=direct
cmp /tmp/data /tmp/found
fio_on "$(disk "$two" 1)" 2 --iodepth=8 --bs=4k
