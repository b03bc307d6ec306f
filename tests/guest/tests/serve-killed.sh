#: machine served
#: limit 120
# The server is killed under I/O, and started again: what was flushed is there. QEMU's client does not come back to a server,
# and QEMU 11.1 dies when its device is taken away, served or not: the guest gets a new QEMU, as if its plug was pulled.
. /lib/guest/served.sh
. /lib/guest/records.sh
give "$two" nvme
disk=$(disk "$two" 1)
if [ "$boot" = 1 ]; then
  fio_on "$disk" 60 --iodepth=32 --bs=4k &
  record "$disk" &
  sleep 4
  served kill
  sleep 1
  served start
  again
  tell power-cycle
  sleep 60
fi
check_records "$disk"
fio_on "$disk" 2 --iodepth=32 --bs=4k
