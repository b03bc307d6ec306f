# A drive that is used by `probe watch` in the background, which writes what happens to /tmp/seen.

# watch FUNCTION
watch() {
  probe watch "pci:$1" >/tmp/seen 2>/tmp/complaint &
  watcher=$!
  within 20 grep -q '"ready":true' /tmp/seen
}
# sees SECONDS TEXT...: waits for a line that has all of this in it.
sees() {
  limit_=$1
  shift
  within "$limit_" seen "$@"
}
seen() {
  cp /tmp/seen /tmp/seen_
  for text_ in "$@"; do
    grep -F "$text_" /tmp/seen_ >/tmp/seen__ || return 1
    mv /tmp/seen__ /tmp/seen_
  done
}
# count NSID: I/Os that the watcher did to a namespace, once it has ended.
count() { sed -n "s/.*\"ios\":{[^}]*\"$1\":\([0-9]*\).*/\1/p" /tmp/seen; }
# watched: the watcher is asked to end, and has seen only data that was written.
watched() {
  kill "$watcher"
  wait "$watcher" || fail "the watcher failed: $(cat /tmp/complaint)"
  cat /tmp/seen
  ! grep miscompare /tmp/seen || fail "data that nobody wrote"
}
