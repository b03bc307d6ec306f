#: machine handover
#: limit 120
# One program after the other takes the place of the one before, in one process, and goes on with the drive that was left to it.
. /lib/guest/handover.sh
drive=$(at 04)
give "$drive" vfio-pci
started=$(traced pci_nvme_mmio_start_success) stopped=$(traced pci_nvme_mmio_stopped)
DOORBELL_TEST_FIRST=1 DOORBELL_TEST_LEFT=20 probe part reborn "pci:$drive,interface=group" >/tmp/result
grep -q 'REPORT works' /tmp/result || fail "$(tail -n 3 /tmp/result)"
unchanged
note "20 programs, $started start, $stopped stop"
