#: machine handover
#: limit 180
# A server that shares a drive out is replaced by another, and that by the next, under verified I/O of a client: the client
# notices nothing, and the drive neither.
. /lib/guest/handover.sh
drive=$(at 04)
give "$drive" vfio-pci
started=$(traced pci_nvme_mmio_start_success) stopped=$(traced pci_nvme_mmio_stopped)
cd /tmp
doorbell serve --socket a.sock --control control.sock --namespace "device:pci:$drive" >/tmp/server 2>&1 &
within 20 test -S a.sock
doorbell bench vfio-user:a.sock --rw randrw --verify --iodepth 8 --size 16M --runtime 1h -o json >/tmp/result 2>/tmp/told &
bench=$!
sleep 2
turns=20
for turn in $(seq $turns); do
  doorbell serve --takeover control.sock >"/tmp/server$turn" 2>&1 &
  within 20 grep -q serving "/tmp/server$turn"
  kill -0 $bench || fail "bench ended: $(tail -n 1 /tmp/told)"
  sleep 0.2
done
kill -INT $bench
wait $bench || fail "bench: $(tail -n 1 /tmp/told)"
cat /tmp/result
grep -q '"miscompares": 0' /tmp/result || fail "what was written was not read"
grep -q '"errors": 0' /tmp/result || fail "an I/O failed"
pauses=$(sed -n 's/^taken over after \(.*\) ms$/\1/p' /tmp/server[1-9]* | sort -n)
doorbell ctl control.sock shutdown
unchanged
note "$turns servers, $started start, $stopped stop; nobody served for $(echo "$pauses" | sed -n $((turns / 2))p) ms (median), $(echo "$pauses" | tail -n 1) ms at most"
