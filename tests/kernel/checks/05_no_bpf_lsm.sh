# A kernel whose active security modules lack "bpf": BPF LSM programs load there, attach and
# are never called. The gate must not pretend.
# kernels: 6.12
# boot: lsm=lockdown,yama
. /lab/policy.sh
prints "bpf is not an active LSM" '^[a-z,]*yama[a-z,]*$' cat /sys/kernel/security/lsm
fails "arm refuses" 'E705 cannot-enforce: "bpf" is missing from the active security modules' $arm
fails "arm says the boot parameter" 'Boot with `lsm=[a-z,]*,bpf`' $arm
fails "nor does it audit" 'E705 cannot-enforce' $arm --audit-only
check "the exit code is 5" sh -c "$arm; test \$? = 5"
prints "status says so" '^NOT enforcing: the gate is not armed, and cannot be: "bpf" is missing' $X status
check "nothing was left behind" test ! -e /sys/fs/bpf/bpfseal
check "unsigned loads as before" bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned
