#: machine hotplug
#: factor way mapping device
#: every-change 1
#: limit 200
# The drive's registers vanish under I/O, because Memory Space Enable is cleared: through VFIO, so that the kernel takes the
# mapping away and accesses raise SIGBUS; or behind everybody's back, so that accesses lead nowhere, which shows when
# commands are not answered in time. The process lives to say so.
drive=$(at 04)
give "$drive" vfio-pci
case $way in mapping) modes='interrupt polling' ;; device) modes=interrupt ;; esac
for mode in $modes; do
  doorbell bench "pci:$drive" --rw randrw --verify --size 16M --runtime 180s --completion $mode >/tmp/bench 2>&1 &
  bench=$!
  sleep 2
  kill -0 $bench || fail "bench ended before: $(cat /tmp/bench)"
  begun=$(date +%s)
  case $way in
    mapping) probe disable $bench ;;
    device) printf '\000' | dd of="$pci/devices/$drive/config" bs=1 seek=4 conv=notrunc ;;
  esac
  status=0
  wait $bench || status=$?
  cat /tmp/bench
  note "$mode: ended after $(($(date +%s) - begun)) s: $(tail -n 1 /tmp/bench)"
  [ $status = 1 ] || fail "bench ended with status $status instead of an error"
  ! grep -q 'has been shut down' /tmp/bench || fail "the error does not say what happened"
  doorbell bench "pci:$drive" --rw randrw --verify --size 16M --runtime 1s
done
