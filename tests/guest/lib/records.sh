# Records that are written one after the other, each flushed before the host is told of it: they have to be there whatever
# happens to the guest and to the server.

# Where they begin, in records of 4096 bytes: behind what `fio_on` uses.
records=12288

# contents FIRST LAST
contents() {
  awk -v first="$1" -v last="$2" 'BEGIN { for (n = first; n <= last; n++) for (l = 0; l < 64; l++) printf("%010d %052d\n", n, l) }'
}
# record DISK: goes on until it cannot.
record() {
  number=0
  tell keep 000000.
  while :; do
    number=$((number + 1))
    contents $number $number >/tmp/record
    dd if=/tmp/record of="$1" bs=4096 seek=$((records + number)) conv=notrunc,fsync oflag=direct || return 0
    tell "keep $(printf '%06d.' $number)"
  done
}
# check_records DISK: all of which the host was told.
check_records() {
  kept=$(ask kept | tr -dc '0-9.')
  case $kept in 0*.) ;; *) fail "the host knows of no records" ;; esac
  kept=$(printf %d "$(echo "${kept%.}" | sed 's/^0*//')")
  [ "$kept" -gt 10 ] || fail "only $kept records were written"
  note "$kept records"
  contents 1 "$kept" >/tmp/expected
  dd if="$1" of=/tmp/found bs=4096 skip=$((records + 1)) count="$kept" iflag=direct
  cmp /tmp/expected /tmp/found || fail "a record that was flushed is not there"
}
