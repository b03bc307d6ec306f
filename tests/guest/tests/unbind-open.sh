#: machine groups
# A drive is not taken from the process that drives it; if that is asked for, the process lets go, and the kernel has it.
. /lib/guest/says.sh
drive=$(at 04)
says "vfio-pci has it now" doorbell bind "$drive"
node=$(group_of "$drive")
doorbell bench "pci:$drive" --runtime 1000s --size 16M >/tmp/bench 2>&1 &
bench=$!
within 10 test -e "/proc/$bench/fd"
in_use() { ls -l "/proc/$bench/fd" | grep -q -e "$node" -e /dev/vfio/devices/; }
within 20 in_use
refuses "is open in process $bench (doorbell)" doorbell unbind "$drive"
refuses "kill $bench" doorbell doctor "$drive"
# Those who cannot see the process hear that there is one.
echo 'somebody:x:1000:1000::/tmp:/bin/sh' >>/etc/passwd
chown 1000 "$node"
refuses "a process that cannot be seen from here has it open" su -s /bin/sh somebody -c "doorbell doctor $drive"
refuses "a process that cannot be seen" su -s /bin/sh somebody -c "doorbell unbind $drive"
refuses "driver_override" su -s /bin/sh somebody -c "doorbell unbind $drive --force"
[ "$(driver "$drive")" = vfio-pci ]
kill -0 "$bench"
says "nvme has it now, vfio-pci had it before" doorbell unbind "$drive" --force
status=0
wait "$bench" || status=$?
tail -n 1 /tmp/bench
[ $status = 1 ] && tail -n 1 /tmp/bench | grep -q 'the system wants it back' || fail "bench: status $status"
disk=$(disk "$drive" 1)
dd if="$disk" of=/dev/null bs=1M count=16
says "nvme has it already" doorbell unbind "$drive"
