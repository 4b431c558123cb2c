# Many admitted programs: the set is written, swapped, and judges loads. The times are printed for
# docs/benchmarks.md and not compared, but for a revocation's, which is less than a second. `make soak` (`kills=` on the command line) adds a crowd that
# takes a minute.
# kernels: 6.12
prints "ten" 'crowd 10:.* revoked in [0-9]{1,3} ms' crowd 10
prints "a thousand" 'crowd 1000:.* revoked in [0-9]{1,3} ms' crowd 1000
# More rows than are read at once.
prints "twenty thousand" 'crowd 20000:.* revoked in [0-9]{1,3} ms' crowd 20000
if grep -q 'kills=' /proc/cmdline; then
    prints "a hundred thousand" 'crowd 100000:.* revoked in [0-9]{1,3} ms' crowd 100000
fi
