#: machine handover
#: labs iommufd
#: limit 120
# The same through the drive's own node and /dev/iommu: what is locked for it counts as the next process's.
. /lib/guest/handover.sh
drive=$(at 04)
give "$drive" vfio-pci
handed=0
hand_over "pci:$drive,interface=iommufd" --iodepth 32 --completion interrupt
hand_over "pci:$drive,interface=group" --iodepth 32 --completion interrupt
note "$handed handovers"
