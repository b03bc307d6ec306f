#: machine chain
#: limit 180
# From the guest to a file through two servers, the first of which drives the controller of the second. The second is killed
# under I/O and started again, and grows: the guest notices just the new size.
. /lib/guest/files.sh
. /lib/guest/served.sh
. /lib/guest/records.sh
function=$(at 04)
give "$function" nvme
disk=$(disk "$function" 1)
/usr/sbin/mke2fs -q -t ext4 -b 4096 "$disk"
mount -t ext4 "$disk" /mnt
make_files /mnt/tree
umount /mnt
mount -t ext4 -o ro "$disk" /mnt
check_files /mnt/tree
umount /mnt
while read -r sum path; do
  found=$(ask sum image.disk "/tree/${path#./}" | sed 's/.*:"\([0-9a-f]*\)".*/\1/')
  [ "$found" = "$sum" ] || fail "the host finds other content in $path"
done </tmp/sums

fio_on "$disk" 12 --iodepth=32 --bsrange=512-128k &
record "$disk" &
sleep 4
served behind kill
sleep 1
served behind start
wait %1
kill %2
check_records "$disk"

blocks() { [ "$(cat "/sys/block/${disk##*/}/size")" = "$1" ]; }
blocks 524288
served behind resize 1 512M
within 20 blocks 1048576
fio_on "$disk" 2 --iodepth=1 --bs=4k --offset=480M
