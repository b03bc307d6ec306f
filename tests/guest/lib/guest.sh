# What tests have at hand. A test is a shell script that fails with its first command that fails (`sh -eu`).

exec 8<>/dev/ttyS1

# To the host ---------------------------------------------------------------------------------------------------------

# tell WORD...: a line to the host's side of the harness.
tell() { printf '%s\n' "$*" >&8; }
# note TEXT: shown with the test's result.
note() { tell "note $*"; }
# fail REASON: ends the test.
fail() {
  echo "$*" >/tmp/reason
  exit 1
}
# ask WORD...: a line to the host, and its answer; fails if the answer is a refusal.
ask() {
  tell "$*"
  IFS= read -r answer <&8
  case $answer in '{"error"'*) fail "the host refuses \"$*\": $answer" ;; esac
  echo "$answer"
}
# qmp COMMAND [ARGUMENTS]: has QEMU do something.
qmp() { ask "qmp {\"execute\":\"$1\",\"arguments\":${2:-{\}}}"; }
# unplug ID: removes a device, and waits until it is gone.
unplug() {
  qmp device_del "{\"id\":\"$1\"}"
  ask "event DEVICE_DELETED $1"
}

# again: the guest is about to start anew. The test that runs is begun again then, with `boot` one more than it is now.
again() { ask again; }
# peer COMMAND...: has the other guest of this machine do something.
peer() {
  peer_said_=$(ask peer "$*")
  case $peer_said_ in *'"status":0'*) ;; *) echo "the peer: $*: $peer_said_" && return 1 ;; esac
}

# served WORD...: an order to the `doorbell serve` of this machine: `start`, `kill`, `end`, `replace`, `folder`, or a verb
# of `doorbell ctl`; after `behind`, to the one behind it.
served() { ask serve "$*"; }

# The kernel ----------------------------------------------------------------------------------------------------------

# load MODULE...: with what they depend on, in the order that the host found.
load() {
  for wanted in "$@"; do
    wanted=$(echo "$wanted" | tr - _)
    [ -e "/modules/$wanted.ko" ] || continue # built in
    grep -q "^$wanted " /proc/modules && continue
    depends=$(strings -n 8 "/modules/$wanted.ko" | sed -n 's/^depends=//p' | head -n 1 | tr , ' ')
    for other in $depends; do (load "$other"); done
    # One block device for each namespace and controller, named for the controller.
    case $wanted in nvme_core) insmod "/modules/$wanted.ko" multipath=N ;; *) insmod "/modules/$wanted.ko" ;; esac
  done
}

# within SECONDS COMMAND...: waits until the command succeeds.
within() {
  until_=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt "$until_" ] || fail "not in time: $*"
    sleep 0.1
  done
}

# Drives --------------------------------------------------------------------------------------------------------------

pci=/sys/bus/pci

# functions: the addresses of all NVMe functions.
functions() {
  for function in $pci/devices/*; do
    [ "$(cat "$function/class")" = 0x010802 ] && basename "$function"
  done
  return 0
}
# at SLOT: the address of the function that QEMU has put there (`addr=`, as hexadecimal).
at() { echo "0000:00:$1.0"; }
# driver FUNCTION: the driver that it has, if any.
driver() { [ ! -e "$pci/devices/$1/driver" ] || basename "$(readlink "$pci/devices/$1/driver")"; }
# give FUNCTION DRIVER: takes a function from its driver, if it has one, and gives it to another.
give() {
  [ "$(driver "$1")" != "$2" ] || return 0
  [ -z "$(driver "$1")" ] || echo "$1" >"$pci/devices/$1/driver/unbind"
  echo "$2" >"$pci/devices/$1/driver_override"
  echo "$1" >"$pci/drivers_probe"
  [ "$(driver "$1")" = "$2" ] || fail "$1 does not go to $2"
}
# disk FUNCTION NSID: the kernel's block device of a namespace, once there is one.
disk() {
  within 20 block_of "$1" "$2" >/dev/null
  block_of "$1" "$2"
}
block_of() {
  for block in "$pci/devices/$1"/nvme/nvme*/nvme*n*; do
    [ "$(cat "$block/nsid" 2>/dev/null)" = "$2" ] && [ -b "/dev/${block##*/}" ] && echo "/dev/${block##*/}" && return 0
  done
  return 1
}
# controller FUNCTION: the kernel's character device of it, once there is one.
controller() {
  within 20 test -d "$pci/devices/$1/nvme"
  echo "/dev/$(ls "$pci/devices/$1/nvme" | head -n 1)"
}

# restore: has all drives as they are at the start of a test: nobody's.
restore() {
  umount -a -t ext4,xfs 2>/dev/null
  for function in $(functions); do
    [ -z "$(driver "$function")" ] || echo "$function" >"$pci/devices/$function/driver/unbind"
    echo >"$pci/devices/$function/driver_override"
  done
}
