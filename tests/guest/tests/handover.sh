#: machine handover
#: limit 300
# One process after the other goes on with a drive, under verified I/O. No I/O is lost or done twice, and the controller
# notices nothing: it is started once, and stopped by nobody but the last.
. /lib/guest/handover.sh
drive=$(at 04)
give "$drive" vfio-pci
handed=0
hand_over "pci:$drive,interrupts=msix" --iodepth 1 --completion interrupt
hand_over "pci:$drive,interrupts=msix" --iodepth 32 --completion adaptive
hand_over "pci:$drive,interrupts=msix" --iodepth 256 --bs 512 --completion polling
hand_over "pci:$drive,interrupts=intx" --iodepth 4 --completion interrupt
# Older kernels and machines start fewer processes a second.
while [ "$handed" -lt 100 ]; do
  hand_over "pci:$drive" --iodepth 32
done
note "$handed handovers"
