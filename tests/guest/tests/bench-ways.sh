#: machine bench
#: factor way intx huge
# Random reads and writes hold what was written, with the interrupt of a pin, and with data in huge pages.
drive=$(at 15)
give "$drive" vfio-pci
address="pci:$drive"
pages=/sys/kernel/mm/hugepages/hugepages-2048kB
case $way in
intx)
  address="$address,interrupts=intx"
  in_use() { grep -q "vfio-intx($drive)" /proc/interrupts; }
  ;;
huge)
  echo 64 >$pages/nr_hugepages
  all=$(cat $pages/free_hugepages)
  [ "$all" -gt 32 ] || fail "there are only $all huge pages"
  in_use() { [ "$(cat $pages/free_hugepages)" -lt "$all" ]; }
  ;;
esac
doorbell bench "$address" --namespace-id 1 --rw randrw --verify --bs 64k --iodepth 32 --completion interrupt \
  --size 8388608 --runtime 2s -o json >/tmp/result &
bench=$!
within 10 in_use
wait $bench
[ $way != huge ] || echo 0 >$pages/nr_hugepages
cat /tmp/result
checked=$(sed -n 's/.*"checked_blocks": \([0-9]*\).*/\1/p' /tmp/result)
[ "$checked" -gt 0 ] || fail "nothing was checked"
