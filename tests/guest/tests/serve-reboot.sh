#: machine served
#: limit 120
#: factor how reset reboot
#: every-change 1
# The guest starts anew under I/O, and finds its controller, and what it flushed.
. /lib/guest/served.sh
. /lib/guest/records.sh
give "$two" nvme
disk=$(disk "$two" 1)
if [ "$boot" = 1 ]; then
  fio_on "$disk" 60 --iodepth=32 --bs=4k &
  record "$disk" &
  sleep 4
  again
  case $how in reset) tell reset ;; reboot) reboot -f ;; esac
  sleep 60
fi
check_records "$disk"
fio_on "$disk" 2 --iodepth=32 --bs=4k
