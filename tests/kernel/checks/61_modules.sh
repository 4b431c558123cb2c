# Programs for functions of kernel modules: of the module for which they were measured, by its name
# and the content of its types, and of no other.
# spare: 6.12
# modules: dummy dummy_other
. /lab/modules.sh
module=dummy programs=/sys/fs/bpf/traced
load="bpftool prog loadall $objects/trace_module.bpf.o $programs"
meant trace_module count_dummies
check "and counts" eval '$load pinmaps /sys/fs/bpf/maps autoattach && ip link add dummy7 type dummy &&
    bpftool map dump pinned /sys/fs/bpf/maps/*bss* | grep -q "\"made\": 1"'
rm -rf $programs /sys/fs/bpf/maps
ip link del dummy7
follows
:
