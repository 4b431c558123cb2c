# aya, which reads, relocates and orders objects itself: refused before its objects are admitted,
# loaded after.
# spare: 6.12 7.3
. /lab/policy.sh
sed -e 's/^scope = .*/scope = "*"\nprogram_types = ["xdp", "tracing", "tracepoint", "kprobe", "sched_cls", "lsm"]\nload_targets = ["*"]\ntunables = { "*" = "any" }/' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
# It knows no section of the name "tc", which classify has.
names="count_exec trace_unlink watch_open drop_port refuse_ptrace"
for object in $names; do
    prints "aya loads $object without a gate" 'program .* id [0-9]+' aya-loader $objects/$object.bpf.o
done
prints "arm" '^Enforcing' $arm
for object in $names; do
    fails "aya loads $object before" 'os error 1\)' aya-loader $objects/$object.bpf.o
done
for object in $names; do
    check "admit $object" admitted $object
    prints "aya loads $object" 'program .* id [0-9]+' aya-loader $objects/$object.bpf.o
done
fails "aya loads tamper_exec" 'os error 1\)' aya-loader $objects/tamper_exec.bpf.o
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
