#: machine groups
#: limit 90
# A drive is not taken from whatever uses it, in all ways in which it can be used; unless that is asked for.
. /lib/guest/says.sh
drive=$(at 04)
give "$drive" nvme
disk=$(disk "$drive" 1)
name=${disk##*/}
# The two partitions are made anew: tests may come in any order.
dd if=/dev/zero of="$disk" bs=1M count=2
printf 'n\np\n1\n2048\n40000\nn\np\n2\n43008\n80000\nw\n' | fdisk "$disk" >/dev/null
within 10 test -b "${disk}p2"
mke2fs "${disk}p1" >/dev/null
mkdir -p /mnt/a

mount -t ext4 "${disk}p1" /mnt/a
says "${name}p1 is mounted at /mnt/a" doorbell list
refuses "${name}p1 is mounted at /mnt/a" doorbell bind "$drive"
refuses "${name}p1 is mounted at /mnt/a" doorbell doctor "$drive"
mkswap "${disk}p2" >/dev/null
swapon "${disk}p2"
refuses "${name}p2 is swapped to" doorbell bind "$drive"
swapoff "${disk}p2"
umount /mnt/a

# Where this process does not see it.
unshare -m sh -c "mount -t ext4 ${disk}p1 /mnt/a && touch /tmp/mounted && exec sleep 1000" &
other=$!
within 10 test -e /tmp/mounted
refuses "${name}p1 is claimed" doorbell bind "$drive"
kill "$other"
wait "$other" || true

# Open, but not claimed.
sleep 1000 <"$disk" &
other=$!
refuses "$name is open in process $other (sleep)" doorbell bind "$drive"
kill "$other"
wait "$other" || true
[ "$(driver "$drive")" = nvme ] || fail "it was taken"
refuses "doorbell bind $drive" doorbell doctor "$drive"

# What is asked for is done: whoever had it open loses it.
sleep 1000 <"$disk" &
other=$!
says "vfio-pci has it now, nvme had it before" doorbell bind "$drive" --force
[ "$(driver "$drive")" = vfio-pci ]
kill "$other"
says "yes" doorbell list
says "vfio-pci has it already" doorbell bind "pci:$drive"
says "nvme has it now" doorbell unbind "$drive"
[ "$(driver "$drive")" = nvme ]
[ "$(cat "$pci/devices/$drive/driver_override")" = "(null)" ]
disk=$(disk "$drive" 1)
within 10 test -b "${disk}p1"
mount -t ext4 -o ro "${disk}p1" /mnt/a
umount /mnt/a
