# lockdown=confidentiality: BPF programs read zeros instead of kernel memory, so the gate would
# judge what it cannot see.
# kernels: 6.12
# boot: lockdown=confidentiality
. /lab/policy.sh
prints "lockdown is on" '\[confidentiality\]' cat /sys/kernel/security/lockdown
fails "arm refuses" 'E705 cannot-enforce: .*lockdown=confidentiality' $arm
fails "arm says what to change" 'Boot with `lockdown=integrity`' $arm
check "the exit code is 5" sh -c "$arm; test \$? = 5"
prints "status says so" '^NOT enforcing: the gate is not armed, and cannot be: lockdown=confidentiality' $X status
check "nothing was left behind" test ! -e /sys/fs/bpf/bpfseal
