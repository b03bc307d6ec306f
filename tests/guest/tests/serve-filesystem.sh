#: machine served
#: limit 120
# A file system that is written through one controller is read through the other.
. /lib/guest/files.sh
. /lib/guest/served.sh
give "$one" nvme
disk=$(disk "$one" 1)
/usr/sbin/mke2fs -q -t ext4 -b 4096 "$disk" 64M
mount -t ext4 "$disk" /mnt
make_files /mnt/tree
fstrim /mnt
check_files /mnt/tree
umount /mnt
give "$two" nvme
mount -t ext4 -o ro "$(disk "$two" 1)" /mnt
check_files /mnt/tree
umount /mnt
