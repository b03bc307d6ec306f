#: machine no-remapping
#: every-change 0
# VFIO keeps a drive back whose interrupts are not remapped; the doctor says so, and what makes it give in.
. /lib/guest/says.sh
drive=$(at 04)
says "vfio-pci has it now" doorbell bind "$drive"
load vfio_iommu_type1
refuses "are not remapped by the IOMMU" doorbell doctor "$drive"
parameter=$(sed -n 's/.*echo 1 > //p' /tmp/said)
refuses "allow_unsafe_interrupts" doorbell id-ctrl "pci:$drive"
echo 1 >"$parameter"
says "which is allowed" doorbell doctor "$drive"
says UNMAPPED doorbell id-ctrl "pci:$drive"
