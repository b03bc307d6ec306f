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
refused() { # PATTERN COMMAND...
  pattern=$1
  shift
  if "$@" >/tmp/said 2>&1; then fail "$* is not refused"; fi
  grep -q "$pattern" /tmp/said || fail "$* says: $(cat /tmp/said)"
}
blocks=$(cat "/sys/block/${disk#/dev/}/size")
nsze="nsze *: $(printf '0x%x' "$blocks")"
says '^sn *: DOORBELL0001' nvme id-ctrl "$controller"
says '0x2' nvme list-ns "$controller"
says "$nsze" nvme id-ns "$disk"
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
refused 'Compare Failure\|COMPARE_FAILED' nvme compare "$disk" -s 8 -c 15 -z 8192 -d /tmp/zero
# What cannot be read is neither read nor verified, until it is written.
says uccess nvme write-uncor "$disk" -s 8 -c 0
refused 'Unrecovered Read Error\|READ_ERROR' nvme verify "$disk" -s 8 -c 15
says Success nvme write "$disk" -s 8 -c 15 -z 8192 -d /tmp/data
says uccess nvme verify "$disk" -s 8 -c 15
# The logs tell of it: what was read is counted, and what was refused is an entry of the error log.
commands() { nvme smart-log "$controller" -o json | sed -n 's/.*"host_read_commands" *: *"*\([0-9]*\).*/\1/p'; }
before=$(commands)
dd if="$disk" of=/dev/null bs=4096 count=16 iflag=direct
[ "$(commands)" -ge $((before + 16)) ] || fail "16 reads are not in the health log: $before, $(commands)"
refused . nvme io-passthru "$disk" -o 0x7f -n 1
says 'error_count[[:space:]]*: [1-9]' nvme error-log "$controller" -e 1
# A feature that is set is what is found, until the reset.
says 'Current value:0x00000001' nvme get-feature "$controller" -f 6
says . nvme set-feature "$controller" -f 6 -V 0
says 'Current value:0[x0]*$' nvme get-feature "$controller" -f 6
nvme ns-rescan "$controller"
nvme reset "$controller"
says 'Current value:0x00000001' nvme get-feature "$controller" -f 6
says "$nsze" nvme id-ns "$disk"
# The second namespace: 64 MiB in blocks of 4 KiB, and then of 512 bytes, with nothing in them.
second=$(disk "$two" 2)
test "$(cat "/sys/block/${second#/dev/}/queue/logical_block_size")" = 4096
head -c 4096 /dev/urandom | dd of="$second" bs=4096 oflag=direct
says Success nvme format "$second" -l 0 -f
has_small_blocks() { [ "$(cat "/sys/block/${second#/dev/}/queue/logical_block_size")" = 512 ]; }
within 10 has_small_blocks
dd if="$second" of=/tmp/found bs=4096 count=1 iflag=direct
head -c 4096 /dev/zero | cmp - /tmp/found
says Success nvme format "$second" -l 3 -f
