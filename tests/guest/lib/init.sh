#!/bin/busybox sh
# The guest's first process. It runs the tests of /plan one after the other, each as a process of its own, and tells the
# host over the second serial line what came of each. What that line's words mean: xtask/src/guest/session.rs.
/bin/busybox mkdir -p /bin /sbin
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
echo 'root:x:0:0::/tmp:/bin/sh' >/etc/passwd
stty -F /dev/ttyS1 raw -echo
. /lib/guest/guest.sh
# Tests choose who gets a drive.
echo 0 >/sys/bus/pci/drivers_autoprobe
load $(cat /load)

if [ "${role:-}" = peer ]; then . /lib/guest/peer.sh; fi

# After a reset the guest goes on where it was. Whatever line was cut short is ended.
printf '\030\n' >&8
set -- $(ask resume | tr -c '0-9\n' ' ')
over=$1 boot=$2

# What the kernel has said since a mark.
since() { dmesg | sed "1,/$1/d"; }
fault='DMAR:.*fault addr\|DMAR: DRHD: handling fault'
trouble='BUG:\|Oops\|general protection fault\|blocked for more than\|WARNING:\|Call Trace'

number=0
while read -r name script limit faults values <&7; do
  number=$((number + 1))
  [ $number -gt "$over" ] || continue
  mark="doorbell test $number begins"
  tell "begin $name"
  echo "$mark" >/dev/kmsg
  rm -f /tmp/reason
  env boot="$boot" $values timeout -s KILL "$limit" sh -eu -c '. /lib/guest/guest.sh; set -x; . /tests/$0.sh' "$script" >/tmp/log 2>&1 7<&-
  status=$?
  boot=1
  kill -9 -1 # whatever the test left behind
  since "$mark" >/tmp/kernel
  if [ $status = 137 ] && [ ! -s /tmp/reason ]; then
    reason="killed after $limit s"
  elif [ $status != 0 ]; then
    reason=$(cat /tmp/reason 2>/dev/null)
    reason=${reason:-"status $status after: $(grep '^+' /tmp/log | tail -n 1)"}
  elif [ "$faults" = none ] && grep -q "$fault" /tmp/kernel; then
    reason="the device reached for memory that is not mapped: $(grep "$fault" /tmp/kernel | head -n 2 | tr '\n' ' ')"
  elif [ "$faults" = faults ] && ! grep -q 'DMAR:.*fault addr' /tmp/kernel; then
    reason='the device was to reach for memory that is not mapped, and the kernel has not noticed'
  elif grep -q "$trouble" /tmp/kernel; then
    reason="the kernel complains: $(grep "$trouble" /tmp/kernel | head -n 1)"
  else
    reason=
  fi
  tail -n 60 /tmp/log | while IFS= read -r line; do tell "log $line"; done
  tail -n 40 /tmp/kernel | while IFS= read -r line; do tell "log kernel: $line"; done
  if [ -n "$reason" ]; then tell "fail $(echo "$reason" | tr '\n' ' ')"; else tell ok; fi
  rm -rf /tmp/*
  restore
done 7</plan
tell end
poweroff -f
