#: machine namespaces
#: labs trixie-backports
# A namespace appears while others are in use, is used, and is taken away under I/O; and once more.
. /lib/guest/watch.sh
ours=$(at 04)
give "$ours" vfio-pci
watch "$ours"
for turn in 1 2; do
  : turn $turn
  before=$(grep -c '"event":"added"' /tmp/seen || true)
  qmp device_add '{"driver":"nvme-ns","id":"late","drive":"three","bus":"ours","nsid":3}'
  more() { [ "$(grep -c "$1" /tmp/seen)" -gt "$2" ]; }
  within 20 more '"event":"added"' "$before"
  sleep 1
  before=$(grep -c '"event":"removed"' /tmp/seen || true)
  qmp device_del '{"id":"late"}'
  within 20 more '"event":"removed"' "$before"
  within 20 more '"handle":3.*"removed":true' "$before"
done
watched
! grep -F '"failed":1' /tmp/seen || fail "another namespace failed"
[ "$(count 3)" -gt 0 ] || fail "the namespace had no I/O"
