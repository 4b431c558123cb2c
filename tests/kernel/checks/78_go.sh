# cilium/ebpf, whose process has threads that share one table of descriptors: refused before its
# objects are admitted, loaded after, also by many threads at a time.
# spare: 6.1 6.12
# tool: go-loader go-loader
. /lab/policy.sh
sed -e 's/^scope = .*/scope = "*"\nprogram_types = ["xdp", "tracing", "tracepoint", "kprobe", "sched_cls", "lsm"]\nload_targets = ["*"]\ntunables = { "*" = "any" }/' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
prints "arm" '^Enforcing' $arm
names="count_exec trace_unlink watch_open drop_port classify refuse_ptrace"
for object in $names; do
    fails "cilium/ebpf loads $object before" 'operation not permitted' go-loader $objects/$object.bpf.o
done
for object in $names; do
    check "admit $object" admitted $object
    check "cilium/ebpf loads $object" go-loader $objects/$object.bpf.o
done
fails "cilium/ebpf loads tamper_exec" 'operation not permitted' go-loader $objects/tamper_exec.bpf.o
for object in count_exec trace_unlink; do
    prints "eight threads load $object" ': 0 of 64 loads failed' go-loader $objects/$object.bpf.o 8 8
done

# The named limit: where constants are blinded, two maps and no functions cannot be told apart.
harden=$(cat /proc/sys/net/core/bpf_jit_harden)
echo 2 >/proc/sys/net/core/bpf_jit_harden
prints "hardened, functions of its own" ': 0 of 8 loads failed' go-loader $objects/trace_unlink.bpf.o 4 2
fails "hardened, two maps and no functions" ': 8 of 8 loads failed' go-loader $objects/count_exec.bpf.o 4 2
prints "because threads share descriptors" 'E411.*or set net.core.bpf_jit_harden to 1' $X events
prints "status says it as well" 'E411\) until net.core.bpf_jit_harden is 1' $X status
echo $harden >/proc/sys/net/core/bpf_jit_harden
prints "loaded again afterwards" ': 0 of 8 loads failed' go-loader $objects/count_exec.bpf.o 4 2
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
