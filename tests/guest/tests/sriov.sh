#: machine sriov
# The physical function stays with the kernel; Doorbell drives the virtual one, once it has resources and is online.
physical=0000:01:00.0
give "$physical" nvme
controller=$(controller "$physical")
within 20 block_of "$physical" 1
# The physical function's flexible resources are freed first; that takes a reset.
nvme virt-mgmt "$controller" --cntlid=0 --rt=1 --act=1 --nr=0
nvme virt-mgmt "$controller" --cntlid=0 --rt=0 --act=1 --nr=0
nvme reset "$controller"
echo 1 >"$pci/devices/$physical/sriov_numvfs"
virtual=$(basename "$(readlink "$pci/devices/$physical/virtfn0")")
cntlid=$(nvme list-secondary "$controller" --cntid=0 -o json | sed -n 's/.*"secondary-controller-identifier" *: *\([0-9]*\).*/\1/p' | head -n 1)
nvme virt-mgmt "$controller" --cntlid="$cntlid" --rt=1 --act=8 --nr=2
nvme virt-mgmt "$controller" --cntlid="$cntlid" --rt=0 --act=8 --nr=3
echo 1 >"$pci/devices/$virtual/reset" || true
nvme virt-mgmt "$controller" --cntlid="$cntlid" --act=9
give "$virtual" vfio-pci
doorbell id-ctrl "pci:$virtual"
doorbell bench "pci:$virtual" --rw randrw --verify --runtime 1s --size 16M
# The physical function has not noticed.
[ "$(driver "$physical")" = nvme ]
dd if="$(disk "$physical" 1)" of=/dev/null bs=1M count=16
echo 0 >"$pci/devices/$physical/sriov_numvfs"
