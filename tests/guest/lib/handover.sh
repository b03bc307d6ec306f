# A drive that goes from one process to another.

# traced EVENT: how often QEMU came by it.
traced() { ask traced "$1" | sed 's/[^0-9]//g'; }

# hand_over DEVICE OPTION...: a bench that hands itself over, and what the controller saw of it.
hand_over() {
  started=$(traced pci_nvme_mmio_start_success) stopped=$(traced pci_nvme_mmio_stopped)
  doorbell -vv bench "$@" --rw randrw --verify --size 16M --runtime 8s --handover-every 100ms -o json \
    >/tmp/result 2>/tmp/told || fail "bench: $(tail -n 1 /tmp/told)"
  cat /tmp/result
  ! grep 'process before' /tmp/told >/tmp/left || fail "$(tail -n 1 /tmp/left)"
  count=$(sed -n 's/^ *"count": \([0-9]*\).*/\1/p' /tmp/result)
  handed=$((handed + count))
  [ "$count" -gt 0 ] || fail "no handover"
  unchanged
  note "$*: $count handovers, $started start, $stopped stop"
}

# unchanged: since `started` and `stopped`, the controller was started once, by the first, and at most stopped once.
unchanged() {
  started=$(($(traced pci_nvme_mmio_start_success) - started)) stopped=$(($(traced pci_nvme_mmio_stopped) - stopped))
  [ "$started" = 1 ] || fail "the controller was started $started times"
  [ "$stopped" -le 1 ] || fail "the controller was stopped $stopped times"
}
