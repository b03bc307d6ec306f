#: machine drives
#: factor block 512 4096
#: limit 120
# Doorbell writes a file system; the kernel mounts it and finds every file as it was.
. /lib/guest/files.sh
drive=$(drive_of_blocks "$block")
give "$drive" vfio-pci
make_files /tmp/tree
/usr/sbin/mke2fs -q -t ext4 -b 4096 -d /tmp/tree /tmp/image 48M
doorbell write "pci:$drive" --data /tmp/image
doorbell flush "pci:$drive"
give "$drive" nvme
disk=$(disk "$drive" 1)
[ "$(blockdev --getss "$disk")" = "$block" ] || fail "the kernel sees other blocks"
mount -t ext4 -o ro "$disk" /mnt
check_files /mnt
umount /mnt
