#: machine served
# Two hosts, each at a controller of its own: the one without the reservation is refused.
. /lib/guest/served.sh
give "$one" nvme
give "$two" nvme
first=$(disk "$one" 1)
second=$(disk "$two" 1)
head -c 4096 /dev/urandom >/tmp/data
write_to() { dd if=/tmp/data of="$1" bs=4096 count=1 oflag=direct; }
nvme resv-register "$first" --nrkey=0x1234 --rrega=0
nvme resv-acquire "$first" --crkey=0x1234 --rtype=1 --racqa=0
# Who holds what is seen by both.
for disk in "$first" "$second"; do
  nvme resv-report "$disk" --eds >/tmp/said
  cat /tmp/said
  grep -q 'regctl *: 1$' /tmp/said && grep -q 'rtype *: 1$' /tmp/said && grep -q 'rkey *: 1234$' /tmp/said ||
    fail "the report says: $(cat /tmp/said)"
done
write_to "$first"
if write_to "$second"; then fail "the host without the reservation may write"; fi
dd if="$second" of=/tmp/read bs=4096 count=1 iflag=direct
cmp /tmp/data /tmp/read
nvme resv-release "$first" --crkey=0x1234 --rtype=1 --rrela=0
write_to "$second"
nvme resv-register "$first" --crkey=0x1234 --rrega=1
