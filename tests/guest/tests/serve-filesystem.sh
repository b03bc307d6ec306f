#: machine served
#: limit 240
#: factor kind ext4 xfs
# A file system that is written through one controller is read through the other, and in the server's file by the host.
# What it trims the file gives back.
. /lib/guest/files.sh
. /lib/guest/served.sh
load "$kind"
give "$one" nvme
disk=$(disk "$one" 1)
case $kind in
ext4) /usr/sbin/mke2fs -q -t ext4 -b 4096 "$disk" ;;
xfs) /usr/sbin/mkfs.xfs -q -f "$disk" ;;
esac
mount -t "$kind" "$disk" /mnt
make_files /mnt/tree
# How many KiB the server's file takes up.
taken() { ask blocks image.disk | tr -dc 0-9; }
head -c 20971520 /dev/urandom >/mnt/large
sync
before=$(taken)
rm /mnt/large
# What is free is free for good, behind all that the file systems put off.
umount /mnt
mount -t "$kind" "$disk" /mnt
fstrim /mnt
after=$(taken)
note "$before KiB with a file of 20480 KiB, $after without"
[ $((before - after)) -gt 20000 ] || fail "the server's file has not shrunk"
check_files /mnt/tree
umount /mnt
give "$two" nvme
mount -t "$kind" -o ro "$(disk "$two" 1)" /mnt
check_files /mnt/tree
umount /mnt
while read -r sum path; do
  found=$(ask sum image.disk "/tree/${path#./}" | sed 's/.*:"\([0-9a-f]*\)".*/\1/')
  [ "$found" = "$sum" ] || fail "the host finds other content in $path"
done </tmp/sums
