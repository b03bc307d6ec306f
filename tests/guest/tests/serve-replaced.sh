#: machine served
#: limit 240
# The server is replaced again and again under verified I/O, and the kernel's driver notices nothing.
. /lib/guest/served.sh
give "$one" nvme
give "$two" nvme
first=$(disk "$one" 1) second=$(disk "$two" 2)
dmesg -c >/dev/null

# rounds NAME DISK OPTION...: writes, reads back and verifies, round after round until there is enough.
rounds() {
  name=$1 disk=$2
  shift 2
  while [ ! -e /tmp/enough ]; do
    fio --name="$name" --filename="$disk" --rw=randrw --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 \
      --output="/tmp/$name" "$@" || fail "fio: $(grep -i 'err\|verify' "/tmp/$name" | head -n 3)"
    echo . >>"/tmp/$name-rounds"
  done
}
rounds deep "$first" --size=8M --iodepth=32 --bs=4k --numjobs=2 --offset_increment=8M &
deep=$!
rounds alone "$second" --size=4M --iodepth=1 &
alone=$!
sleep 2
replaced=0
while [ $replaced -lt 100 ]; do
  served replace >/dev/null
  replaced=$((replaced + 1))
done
touch /tmp/enough
wait $deep
wait $alone
dmesg >/tmp/kernel-since
! grep -iE 'nvme.*(timeout|reset|abort|error|down)|I/O error' /tmp/kernel-since || fail "the kernel has noticed"
note "$replaced servers, $(wc -l </tmp/deep-rounds) and $(wc -l </tmp/alone-rounds) rounds of fio"
