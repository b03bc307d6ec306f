# The controllers of the machine `served`: `one` is behind a port, `two` is not. Both have the same namespaces.

one=0000:01:00.0
two=$(at 04)

# fio_on DISK SECONDS OPTION...: verified random I/O, some of which may last until a change is through.
fio_on() {
  fio_disk=$1 fio_time=$2
  shift 2
  fio --name=io --filename="$fio_disk" --rw=randrw --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 \
    --size=24M --time_based --runtime="$fio_time" --output=/tmp/fio "$@" || fail "fio: $(grep -i 'err\|verify' /tmp/fio | head -n 3)"
}
# folder: where the host has the server's sockets.
folder() { served folder | sed 's/.*"return":"\([^"]*\)".*/\1/'; }
