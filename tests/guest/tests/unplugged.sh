#: machine hotplug
#: limit 120
# The drive is pulled under I/O: the kernel gets it back at once, I/Os end with an error that says so, nobody dies; and
# plugged in again, it can be used.
hot=0000:01:00.0
give "$hot" vfio-pci
for turn in 1 2; do
  doorbell bench "pci:$hot" --rw randrw --verify --size 16M --runtime 90s --completion "$([ $turn = 1 ] && echo interrupt || echo polling)" >/tmp/bench 2>&1 &
  bench=$!
  sleep 3
  kill -0 $bench || fail "bench ended before: $(cat /tmp/bench)"
  begun=$(date +%s)
  unplug hot
  note "turn $turn: unplugged after $(($(date +%s) - begun)) s"
  [ ! -e "$pci/devices/$hot" ] || fail "the kernel still has it"
  status=0
  wait $bench || status=$?
  cat /tmp/bench
  [ $status = 1 ] || fail "bench ended with status $status instead of an error"
  grep -q 'unplugged\|asked back\|wants it back' /tmp/bench || fail "the error does not say what happened: $(tail -n 1 /tmp/bench)"
  qmp device_add '{"driver":"nvme","serial":"HOT","id":"hot","bus":"port1","drive":"hot"}'
  within 20 test -e "$pci/devices/$hot"
  give "$hot" vfio-pci
  doorbell bench "pci:$hot" --rw randrw --verify --size 16M --runtime 1s
done
