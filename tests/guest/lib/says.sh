# What a command says, whether it does what it is asked or not.

# says TEXT COMMAND...: it does it, and says this.
says() { says_ 0 "$@"; }
# refuses TEXT COMMAND...: it does not do it, exits with 1, and says this.
refuses() { says_ 1 "$@"; }
says_() {
  wanted_=$1 text_=$2 status_=0
  shift 2
  "$@" >/tmp/said 2>&1 || status_=$?
  cat /tmp/said
  [ $status_ = "$wanted_" ] || fail "$*: status $status_, not $wanted_: $(tail -n 1 /tmp/said)"
  grep -qF -- "$text_" /tmp/said || fail "$*: does not say \"$text_\": $(tail -n 1 /tmp/said)"
}
# group_of FUNCTION: the node of its IOMMU group.
group_of() { echo "/dev/vfio/$(basename "$(readlink "$pci/devices/$1/iommu_group")")"; }
