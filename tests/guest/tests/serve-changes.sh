#: machine served
#: limit 120
# Namespaces come, change and go under I/O, and the kernel follows.
. /lib/guest/served.sh
give "$two" nvme
disk=$(disk "$two" 1)
fio_on "$disk" 15 --iodepth=8 --bs=4k &
io=$!
sleep 2
# has_blocks COUNT: of 512 bytes.
has_blocks() { [ "$(cat "/sys/block/${disk#/dev/}/size")" = "$1" ]; }
served resize 1 512M
within 10 has_blocks 1048576
served add null:1G -n 9
within 10 block_of "$two" 9 >/dev/null
head -c 65536 /dev/urandom >"$(disk "$two" 9)"
served remove 9
gone() { ! block_of "$two" 9 >/dev/null; }
within 10 gone
served resize 1 384M
within 10 has_blocks 786432
wait $io
