#: machine shared
#: limit 120
# A guest whose IOMMU maps each I/O's memory for as long as the I/O takes: each such change reaches the server in time.
. /lib/guest/served.sh
[ -e "$pci/devices/$(at 04)/iommu_group" ] || fail "the controller is behind no IOMMU"
give "$(at 04)" nvme
disk=$(disk "$(at 04)" 1)
fio_on "$disk" 5 --iodepth=8 --bsrange=4k-128k
note "$(grep -c . /proc/interrupts) interrupts, $(cat "$pci/devices/$(at 04)/iommu_group/type")"
