# Runs in a root of Debian packages with a compiler, a kernel's headers (version $1) and its source (package $2): builds iommufd,
# which Debian's kernels lack, and VFIO with it. The kernel itself stays as it is.
set -ex
export PATH=/usr/bin:/usr/sbin
cd /usr/src
mkdir -p linux
tar -xJf "$2.tar.xz" -C linux --strip-components=1 --wildcards \
  '*/drivers/iommu/iommufd' '*/drivers/iommu/*.h' '*/drivers/vfio' '*/lib/interval_tree.c'
iommufd=$PWD/linux/drivers/iommu/iommufd vfio=$PWD/linux/drivers/vfio
# A part of the kernel's own library that only iommufd needs, and which a kernel without it lacks.
sed '/^EXPORT_SYMBOL/d' linux/lib/interval_tree.c >"$iommufd/interval_tree.c"
echo 'iommufd-y += interval_tree.o' >>"$iommufd/Makefile"
build() { make -j"$(nproc)" -C "/usr/src/linux-headers-$1" CC=gcc-14 CONFIG_IOMMUFD=m "$2" "$3" "$4" "$5" modules; }
build "$1" "M=$iommufd" 'KCFLAGS=-DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1' CONFIG_IOMMUFD_TEST= KBUILD_EXTRA_SYMBOLS=
build "$1" "M=$vfio" 'KCFLAGS=-DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_VFIO_DEVICE_CDEV=1' CONFIG_VFIO_DEVICE_CDEV=y \
  "KBUILD_EXTRA_SYMBOLS=$iommufd/Module.symvers"
mkdir -p /modules
find linux -name '*.ko' -exec cp {} /modules/ \;
