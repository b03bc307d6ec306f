#: machine handover
#: limit 300
# Of two processes that hand a drive on, one is killed, at each step in turn: the other has the drive then, and goes on with it.
drive=$(at 04)
give "$drive" vfio-pci
probe die "pci:$drive,interface=group" | tee /tmp/result
note "$(tail -n 1 /tmp/result)"
