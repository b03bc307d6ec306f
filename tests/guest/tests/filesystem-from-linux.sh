#: machine drives
#: factor block 512 4096
#: limit 120
# The kernel writes a file system; Doorbell reads it, and every file in it is as it was.
. /lib/guest/files.sh
drive=$(drive_of_blocks "$block")
give "$drive" nvme
disk=$(disk "$drive" 1)
/usr/sbin/mke2fs -q -t ext4 -b 4096 "$disk" 48M
mount -t ext4 "$disk" /mnt
make_files /mnt/tree
umount /mnt
give "$drive" vfio-pci
doorbell read "pci:$drive" --data-size 48M --data /tmp/image
mount -t ext4 -o ro,loop /tmp/image /mnt
check_files /mnt/tree
umount /mnt
