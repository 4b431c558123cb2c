# The kernel is the one that the test was told to boot, and it can do what the gate needs.
check "uname is the kernel asked for" test "$(uname -r)" = "$(cat /lab/release)"
prints "bpf is an active LSM" '(^|,)bpf(,|$)' cat /sys/kernel/security/lsm
check "kernel BTF is there" test -s /sys/kernel/btf/vmlinux
prints "lockdown is off" '\[none\]' cat /sys/kernel/security/lockdown
