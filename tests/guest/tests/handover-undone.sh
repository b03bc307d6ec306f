#: machine handover
# A drive that nearly goes to another process stays as it is, busy, however far it came, and whatever was missing.
. /lib/guest/handover.sh
drive=$(at 04)
give "$drive" vfio-pci
for way in group,interrupts=msix group,interrupts=intx; do
  started=$(traced pci_nvme_mmio_start_success) stopped=$(traced pci_nvme_mmio_stopped)
  probe undo "pci:$drive,interface=$way"
  unchanged
done
