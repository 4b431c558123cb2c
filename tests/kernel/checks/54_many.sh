# One link to many functions: a bundle whose rule names them is admitted and attached by libbpf 1.8.
# kernels: 7.3
# apart: bpftool-sid bpftool
object=$objects/trace_many.bpf.o
load="bpftool-sid prog loadall $object /sys/fs/bpf/many autoattach"
check "many functions are traced without a gate" $load
rm -rf /sys/fs/bpf/many
. /lab/policy.sh
sed -e 's/^scope = .*/scope = "*"\nprogram_types = ["tracing"]\nload_targets = ["fentry:vfs_mkd*"]/' policy.toml >narrow.toml
sed -e 's/vfs_mkd/vfs_mk/; s/^version = .*/version = 2/' narrow.toml >wide.toml
mv narrow.toml policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
prints "arm" '^Enforcing' $arm
refused "many functions before admission" $load
check "a bundle is sealed" sealed trace_many 1.0
fails "a bundle for more functions than its rule names is not admitted" 'E304 load-target' $X admit trace_many.tar
mv wide.toml policy.toml
check "the wider policy is signed" bpfseal policy sign policy.toml --key authority.key
prints "arm with a wider rule" '^Enforcing' $arm
prints "it is admitted" admitted $X admit trace_many.tar
check "and traces many functions" $load
# It fails in the end: the gate's links are not to be had.
prints "by one link" tracing_multi sh -c 'bpftool-sid link show pinned /sys/fs/bpf/many/trace_many | cat'
rm -rf /sys/fs/bpf/many
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
