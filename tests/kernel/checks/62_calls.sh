# Programs that call functions of kernel modules: of the modules for which they were measured, by name
# and content, and of no other under the same number.
# spare: 6.12
# modules: tcp_dctcp tcp_dctcp_other
. /lab/modules.sh
module=tcp_dctcp programs=/sys/fs/bpf/calling
load="bpftool prog loadall $objects/call_module.bpf.o $programs"
sed -e 's/^scope = .*/scope = "*"\nprogram_types = ["struct_ops"]\nload_targets = ["*"]/' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
meant call_module call_
follows
:
