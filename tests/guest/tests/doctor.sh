#: machine no-iommu
# What is missing is named, with the command that helps; and a drive that cannot be used is left with the kernel.
. /lib/guest/says.sh
drive=$(at 04)
give "$drive" nvme
disk "$drive" 1
says "no: no IOMMU" doorbell list
refuses "modprobe vfio-pci" doorbell doctor
grep -F "modprobe vfio_iommu_type1" /tmp/said
refuses "run modprobe vfio-pci" doorbell bind "$drive"
load vfio-pci
refuses "there are no IOMMU groups" doorbell doctor "$drive"
grep -F "intel_iommu=on" /tmp/said
refuses "the module of containers is not loaded" doorbell doctor "$drive"
load vfio_iommu_type1
refuses "in no IOMMU group" doorbell bind "$drive"
[ "$(driver "$drive")" = nvme ] || fail "it was taken"
refuses "there is no PCI function 0000:55:00.0" doorbell doctor 55:00.0
refuses "0000:00:1f.0 is no NVMe controller" doorbell bind 00:1f.0
