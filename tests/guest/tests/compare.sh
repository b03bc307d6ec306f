#: machine compare
#: measures
#: limit 900
# The kernel's driver under fio, and Doorbell under bench, which polls, on the same drive in turn. A note for each pair: depth, I/Os per
# second of fio's and of bench's.
drive=$(at 04)
give "$drive" nvme
dd if=/dev/urandom of="$(disk "$drive" 1)" bs=1M count=64
for pair in 1 2 3 4 5 6 7 8 9 10 11; do
  for depth in 1 32; do
    give "$drive" nvme
    fio --name=kernel --filename="$(disk "$drive" 1)" --rw=randread --bs=4k --iodepth=$depth --direct=1 --size=64M \
      --ioengine=io_uring --time_based --runtime=3 --output-format=terse --terse-version=3 >/tmp/fio
    kernel=$(cut -d ';' -f 8 /tmp/fio)
    give "$drive" vfio-pci
    doorbell bench "pci:$drive" --rw randread --bs 4k --iodepth $depth --size 64M --runtime 3s --completion polling -o json >/tmp/bench
    doorbell=$(sed -n 's/.*"iops": \([0-9.]*\).*/\1/p' /tmp/bench)
    note "pair $depth $kernel $doorbell"
  done
done
