#: machine drives
# A drive goes to VFIO and back; one that is mounted stays where it is, unless that is forced; and what is in the way is said.
drive=$(at 04)
give "$drive" nvme
disk=$(disk "$drive" 1)
says() { grep -q "$1" /tmp/said || fail "not said: $1: $(cat /tmp/said)"; }
refused() {
  ! "$@" >/tmp/said 2>&1 || fail "not refused: $*"
  cat /tmp/said
}
doorbell list >/tmp/said
cat /tmp/said
says "^$drive .* nvme .*no: "
/usr/sbin/mke2fs -q -t ext4 -b 4096 "$disk" 8M
mount -t ext4 "$disk" /mnt
refused doorbell bind "$drive"
says /mnt
refused doorbell doctor "$drive"
says /mnt
[ "$(driver "$drive")" = nvme ]
umount /mnt
refused doorbell doctor "$drive"
says "doorbell bind $drive"
doorbell bind "$drive"
[ "$(driver "$drive")" = vfio-pci ]
doorbell list >/tmp/said
says "^$drive .* vfio-pci .*yes"
doorbell doctor "$drive"
doorbell bench "pci:$drive" --runtime 30s >/dev/null 2>&1 &
bench=$!
in_use() { ! doorbell doctor "$drive" >/tmp/said 2>&1 && grep -q "process $bench has it open" /tmp/said; }
within 20 in_use
refused doorbell unbind "$drive"
kill -9 $bench
wait $bench || true
doorbell unbind "$drive" -o json
[ "$(driver "$drive")" = nvme ]
mount -t ext4 "$(disk "$drive" 1)" /mnt
umount /mnt
