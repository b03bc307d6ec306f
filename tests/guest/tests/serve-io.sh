#: machine served
#: limit 120
#: factor depth 1 32
#: factor size 512-512 4k-1m
#: factor jobs 1 3
#: every-change 2
# What is written through the kernel's driver is what is read.
. /lib/guest/served.sh
give "$two" nvme
fio_on "$(disk "$two" 1)" 5 --iodepth="$depth" --bsrange="$size" --numjobs="$jobs" --offset_increment=24M
