#: machine hotplug
# A user who owns the group's node, and may lock enough memory, needs no more. With too little, the error says what to do.
drive=$(at 04)
give "$drive" vfio-pci
group=$(basename "$(readlink "$pci/devices/$drive/iommu_group")")
echo 'somebody:x:1000:1000::/tmp:/bin/sh' >>/etc/passwd
chmod 1777 /tmp
as_user() { su -s /bin/sh somebody -c "$1"; }
[ "$(as_user 'id -u')" = 1000 ]
status=0
as_user "doorbell id-ctrl pci:$drive" >/tmp/refused 2>&1 || status=$?
cat /tmp/refused
[ $status = 1 ] && grep -q "/dev/vfio/$group" /tmp/refused || fail "without permission: $(cat /tmp/refused)"
chown 1000 "/dev/vfio/$group"
status=0
as_user "ulimit -l 64; doorbell bench pci:$drive --runtime 1s --size 16M" >/tmp/refused 2>&1 || status=$?
cat /tmp/refused
[ $status = 1 ] && grep -qi 'memlock' /tmp/refused || fail "with little memory: $(cat /tmp/refused)"
as_user "ulimit -l 65536; doorbell bench pci:$drive --rw randrw --verify --runtime 1s --size 16M"
