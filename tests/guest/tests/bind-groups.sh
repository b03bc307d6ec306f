#: machine groups
# Of two drives in one group neither can be used until both are VFIO's; and each is told so, with what helps.
. /lib/guest/says.sh
left=0000:00:06.0 right=0000:00:06.1
give "$left" nvme
give "$right" nvme
disk "$left" 1
disk "$right" 1
refuses "because of $right (nvme)" doorbell doctor "$left"
grep -F "doorbell bind $right" /tmp/said
says "it is of no use yet: $right of its group is nvme's" doorbell bind "$left"
refuses "$right (nvme)" doorbell id-ctrl "pci:$left"
says "\"driver\": \"vfio-pci\"" doorbell bind "$right" -o json
says "which nobody uses" doorbell doctor "$left"
doorbell id-ctrl "pci:$left" >/tmp/left
doorbell id-ctrl "pci:$right" >/tmp/right
grep LEFT /tmp/left && grep RIGHT /tmp/right
says "nvme has it now" doorbell unbind "$right"
refuses "because of $right (nvme)" doorbell doctor "$left"
