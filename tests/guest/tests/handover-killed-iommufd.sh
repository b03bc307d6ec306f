#: machine handover
#: labs iommufd
#: limit 300
# The same through the drive's own node and /dev/iommu.
drive=$(at 04)
give "$drive" vfio-pci
probe die "pci:$drive,interface=iommufd" | tee /tmp/result
note "$(tail -n 1 /tmp/result)"
