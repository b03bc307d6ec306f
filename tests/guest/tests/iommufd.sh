#: machine drives
#: labs iommufd
# A drive through its own node and /dev/iommu, which is the default where they are, and through its group; one after the
# other, and neither holds up the other.
drive=$(at 04)
give "$drive" vfio-pci
[ -c /dev/iommu ] || fail "no /dev/iommu"
[ -c "/dev/vfio/devices/$(basename "$pci/devices/$drive"/vfio-dev/vfio*)" ] || fail "the drive has no node of its own"
for interface in iommufd group iommufd; do
  doorbell bench "pci:$drive,interface=$interface" --rw randrw --verify --runtime 1s --size 16M
done
doorbell bench "pci:$drive" --runtime 20s --size 16M &
bench=$!
sleep 2
ls -l "/proc/$bench/fd"
ls -l "/proc/$bench/fd" | grep -q /dev/iommu || fail "by default it is not used"
kill -9 $bench
wait $bench || true
