#: machine shared
#: limit 120
# Two guests on one namespace: the one without the reservation is refused, until it takes it over.
give "$(at 04)" nvme
disk=$(disk "$(at 04)" 1)
peer 'give "$(at 04)" nvme; disk "$(at 04)" 1'
# theirs COMMAND: what the other guest does to its disk.
theirs() { peer 'disk=$(disk "$(at 04)" 1);' "$*"; }
head -c 4096 /dev/urandom >/tmp/data
writes() { dd if=/tmp/data of="$disk" bs=4096 count=1 oflag=direct; }
writes
theirs '[ "$(dd if=$disk bs=4096 count=1 iflag=direct | sha256sum)" = '"'$(sha256sum </tmp/data)' ]"
nvme resv-register "$disk" --nrkey=0x1234 --rrega=0
nvme resv-acquire "$disk" --crkey=0x1234 --rtype=1 --racqa=0
writes
write='dd if=/dev/zero of=$disk bs=4096 count=1 oflag=direct'
if theirs "$write"; then fail "the guest without the reservation may write"; fi
dd if="$disk" of=/tmp/found bs=4096 count=1 iflag=direct
cmp /tmp/data /tmp/found
if theirs 'nvme resv-acquire $disk --crkey=0x5678 --rtype=1 --racqa=0'; then fail "who is not registered may acquire"; fi
theirs 'nvme resv-register $disk --nrkey=0x5678 --rrega=0'
if theirs "$write"; then fail "the guest without the reservation may write once it is registered"; fi
theirs 'nvme resv-acquire $disk --crkey=0x5678 --prkey=0x1234 --rtype=1 --racqa=1'
if writes; then fail "who was preempted may write"; fi
theirs "$write"
theirs 'nvme resv-release $disk --crkey=0x5678 --rtype=1 --rrela=0; nvme resv-register $disk --crkey=0x5678 --rrega=1'
writes
