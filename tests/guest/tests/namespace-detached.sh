#: machine namespaces
# A namespace is detached under I/O, and attached again. The handle of it that was there stays dead (C3), the event is
# seen (C1, C6), and the other namespace is not disturbed.
. /lib/guest/watch.sh
ours=$(at 04) theirs=$(at 05)
give "$theirs" nvme
controller=$(controller "$theirs")
give "$ours" vfio-pci
cntlid=$(doorbell id-ctrl "pci:$ours" -o json | sed -n 's/.*"cntlid": *\([0-9]*\).*/\1/p')
watch "$ours"
nvme detach-ns "$controller" --namespace-id=2 --controllers="$cntlid"
sees 20 '"event":"removed"' '"nsid":2'
sees 20 '"failed":2'
sees 20 '"handle":2' '"removed":true' '"told":true' '"class":"Gone"'
nvme attach-ns "$controller" --namespace-id=2 --controllers="$cntlid"
sees 20 '"event":"added"' '"nsid":2'
sleep 1
watched
! grep -F '"failed":1' /tmp/seen || fail "the other namespace failed"
[ "$(count 1)" -gt 0 ] && [ "$(count 2)" -gt 0 ] || fail "a namespace had no I/O"
