# A program that throws names in its BTF the function which then decides. Gate 1 does not see it.
# kernels: 6.12 7.2 7.3
load="bpftool prog load $objects/throw_error.bpf.o /sys/fs/bpf/throw_error"
check "a program with an exception callback loads without a gate" $load
rm -f /sys/fs/bpf/throw_error
attacker admit $objects/throw_error.bpf.o
refused "an admitted program with an exception callback is refused" $load
prints "because of the callback" 'ExceptionCallback' attacker watch
attacker disarm
# The command does not promise what the gate then refuses.
. /lab/policy.sh
prints "arm" '^Enforcing' $arm
check "one that may throw is sealed" sealed throw_error 1.0
fails "it is not admitted" 'may throw.*E509' $X admit throw_error.tar
permitted disarm
check "disarm" $X disarm --permit disarm.permit
