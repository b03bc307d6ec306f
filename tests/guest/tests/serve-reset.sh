#: machine served
#: limit 120
# The kernel resets the controller under I/O, and no data is lost.
. /lib/guest/served.sh
give "$two" nvme
disk=$(disk "$two" 1)
fio_on "$disk" 10 --iodepth=32 --bs=4k &
io=$!
for reset in 1 2 3; do
  sleep 2
  echo 1 >"$pci/devices/$two/nvme/$(basename "$(controller "$two")")/reset_controller"
done
wait $io
