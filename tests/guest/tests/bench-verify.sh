#: machine bench
#: limit 120
#: every-change 10
#: factor depth 1 32 256
#: factor jobs 1 2
#: factor completion interrupt polling adaptive
#: factor bs 4k 8k 128k 512k 1m
#: factor mdts 1 5 7 9
#: factor block 512 4096
#: factor data direct bounce
#: without bs=128k mdts=1
#: without bs=512k mdts=1
#: without bs=512k mdts=5
#: without bs=1m mdts=1
#: without bs=1m mdts=5
#: without bs=1m mdts=7
# Random reads and writes hold what was written, however they are carried.
drive=$(at "1$mdts")
give "$drive" vfio-pci
case $bs in 1m) bytes=1048576 ;; *k) bytes=$((${bs%k} * 1024)) ;; esac
# Room for all that is in flight, and half as much again.
size=$((bytes * depth * jobs * 3 / 2))
[ $size -ge 8388608 ] || size=8388608
case $block in 512) namespace=1 ;; 4096) namespace=2 ;; esac
bounce=
[ "$data" = direct ] || bounce=--bounce
doorbell bench "pci:$drive" --namespace-id $namespace --rw randrw --verify --bs "$bs" --iodepth "$depth" \
  --numjobs "$jobs" --completion "$completion" --size $size --runtime 1s $bounce -o json >/tmp/result
cat /tmp/result
checked=$(sed -n 's/.*"checked_blocks": \([0-9]*\).*/\1/p' /tmp/result)
[ "$checked" -gt 0 ] || fail "nothing was checked"
