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
note "$handed handovers"
[ "$handed" -ge 100 ] || fail "only $handed handovers"
