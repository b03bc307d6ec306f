#: machine hotplug
# A process is killed under I/O. The next one takes the drive over, and what it writes stays as it was written.
drive=$(at 04)
give "$drive" vfio-pci
for mode in interrupt polling adaptive; do
  doorbell bench "pci:$drive" --rw randrw --verify --size 32M --runtime 60s --iodepth 64 --completion $mode >/tmp/bench 2>&1 &
  bench=$!
  sleep 2
  kill -9 $bench || fail "bench ended before: $(cat /tmp/bench)"
  wait $bench || true
  doorbell bench "pci:$drive" --rw randrw --verify --size 32M --runtime 1s --iodepth 64 --completion $mode
done
