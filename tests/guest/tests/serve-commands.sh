#: machine served
#: limit 120
# What nvme-cli asks of a controller, and the kernel with it, does what it says.
. /lib/guest/served.sh
give "$two" nvme
disk=$(disk "$two" 1)
controller=$(controller "$two")
says() { # PATTERN COMMAND...
  pattern=$1
  shift
  "$@" >/tmp/said 2>&1 || fail "$*: $(cat /tmp/said)"
  grep -q "$pattern" /tmp/said || fail "$* says: $(cat /tmp/said)"
}
says '^sn *: DOORBELL0001' nvme id-ctrl "$controller"
says '0x2' nvme list-ns "$controller"
says 'nsze *: 0x40000' nvme id-ns "$disk"
says 'critical_warning' nvme smart-log "$controller"
says 'error_count' nvme error-log "$controller" -e 4
says 'Current value:0x00000001' nvme get-feature "$controller" -f 6
head -c 8192 /dev/urandom >/tmp/data
says Success nvme write "$disk" -s 8 -c 15 -z 8192 -d /tmp/data
says Success nvme compare "$disk" -s 8 -c 15 -z 8192 -d /tmp/data
says uccess nvme verify "$disk" -s 8 -c 15
says uccess nvme copy "$disk" --sdlba=100 --slbs=8 --blocks=15
says Success nvme compare "$disk" -s 100 -c 15 -z 8192 -d /tmp/data
says uccess nvme write-zeroes "$disk" -s 100 -c 7
says uccess nvme dsm "$disk" -d -s 108 -b 8
head -c 8192 /dev/zero >/tmp/zero
says Success nvme compare "$disk" -s 100 -c 15 -z 8192 -d /tmp/zero
if nvme compare "$disk" -s 8 -c 15 -z 8192 -d /tmp/zero >/tmp/said 2>&1; then fail "what differs compares as equal"; fi
nvme ns-rescan "$controller"
nvme reset "$controller"
says 'nsze *: 0x40000' nvme id-ns "$disk"
# The second namespace: 64 MiB in blocks of 4 KiB, and then of 512 bytes.
second=$(disk "$two" 2)
test "$(cat "/sys/block/${second#/dev/}/queue/logical_block_size")" = 4096
says Success nvme format "$second" -l 0 -f
within 10 test "$(cat "/sys/block/${second#/dev/}/queue/logical_block_size")" = 512
