#: machine drives
#: faults
# Were the kernel's log not looked at, or a fault not in it, no other test could fail for one: QEMU's controller has a
# transfer to nowhere succeed.
give "$(at 04)" vfio-pci
probe misdirect "pci:$(at 04)"
