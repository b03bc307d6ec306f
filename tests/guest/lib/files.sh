# Files whose checksums are known, in a folder.

# drive_of_blocks BYTES: the drive of the machine "drives" with these blocks.
drive_of_blocks() { case $1 in 512) at 04 ;; 4096) at 05 ;; esac; }

# make_files FOLDER: of sizes around those of blocks, pages and largest transfers.
make_files() {
  mkdir -p "$1/a/b/c"
  for size in 0 1 511 512 513 4095 4096 4097 65536 524288 524289 3000000 2097152; do
    head -c "$size" /dev/urandom >"$1/a/$size"
    head -c "$size" /dev/urandom >"$1/a/b/c/$size"
  done
  (cd "$1" && find . -type f -exec sha256sum {} +) | sort -k 2 >/tmp/sums
}
# check_files FOLDER: every file that was made is there, with its checksum.
check_files() {
  (cd "$1" && find . -path ./lost+found -prune -o -type f -exec sha256sum {} +) | sort -k 2 >/tmp/found
  [ "$(wc -l </tmp/sums)" = 26 ]
  cmp /tmp/sums /tmp/found || fail "files differ: $(diff /tmp/sums /tmp/found | head -n 3 | tr '\n' ' ')"
}
