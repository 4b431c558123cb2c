# What somebody changes below a file system, for scripts whose generators say "loaded".

# respelled DISK FROM TO: the first letter of each line FROMoaded becomes TO; what was read of it is dropped.
respelled() {
    for place in $(strings -t d $1 | sed -n "s/^ *\([0-9]*\) $2oaded\$/\1/p"); do
        printf $3 | dd of=$1 bs=1 seek=$place conv=notrunc,fsync 2>/dev/null
    done
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# unexecuted NAME FILE: it must fail, and without having come as far as its line.
unexecuted() {
    $2 >"$out" 2>&1
    code=$?
    if [ $code -ne 0 ] && ! grep -q oaded "$out"; then ok "$1" "code $code"; else failed "$1" "code $code: $(said)"; fi
}
