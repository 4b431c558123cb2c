# Many admitted programs: the set is written, swapped, and judges loads. The times are printed for
# docs/benchmarks.md and not compared. `make soak` (`kills=` on the command line) adds a crowd that
# takes a minute.
# kernels: 6.12
prints "ten" 'crowd 10:' crowd 10
prints "a thousand" 'crowd 1000:' crowd 1000
if grep -q 'kills=' /proc/cmdline; then
    prints "a hundred thousand" 'crowd 100000:' crowd 100000
fi
