# Debian's oldest and newest libbpf, iproute2 and libxdp's dispatcher, unmodified: refused before
# their objects are admitted, loaded after.
# spare: 6.12 7.3
# tool: iproute2 ip tc
# tool: xdp-tools xdp-loader
# apart: bpftool-bookworm bpftool
# apart: bpftool-sid bpftool
# apart: libbpf-tools-bookworm execsnoop opensnoop
# apart: libbpf-tools-sid execsnoop-libbpf opensnoop-libbpf
# data: xdp-tools usr/lib/x86_64-linux-gnu/bpf
# modules: sch_ingress cls_bpf
congest="bpftool struct_ops register $objects/congest.bpf.o"
prints "a struct of functions without a gate" 'Registered tcp_congestion_ops congest' $congest
# By number: by name bpftool opens all maps, and the gate's are not to be had.
bpftool struct_ops unregister id ${line##* } >/dev/null
# sched_ext, where the kernel has it.
order="bpftool struct_ops register $objects/order.bpf.o"
[ -e /sys/kernel/sched_ext ] &&
    prints "a scheduler without a gate" 'Registered sched_ext_ops order' $order
. /lab/policy.sh
sed -e 's/^scope = .*/scope = "*"\nprogram_types = ["xdp", "ext", "tracing", "tracepoint", "kprobe", "sched_cls", "lsm", "cgroup_device", "struct_ops"]\nload_targets = ["*", "ext:xdp_dispatcher:*", "ext:xdp_pass:xdp_pass"]\ntunables = { "*" = "any" }/' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
prints "arm" '^Enforcing' $arm
# Busybox has its own ip and tc, which its shell would prefer.
ip=/usr/sbin/ip tc=/usr/sbin/tc
bpf=/usr/lib/x86_64-linux-gnu/bpf
# What libbpf asks the kernel goes through; the programs themselves do not.
for suite in bookworm sid; do
    refused "bpftool of $suite before" bpftool-$suite prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/early
done
refused "opensnoop of bookworm before" opensnoop-bookworm
refused "opensnoop of sid before" opensnoop-libbpf-sid
fails "ip before" 'not permitted|rejected' $ip link set lo xdpgeneric obj $objects/drop_port.bpf.o sec xdp
for module in sch_ingress cls_bpf; do
    [ -d /sys/module/$module ] || check "$module is there" insmod /lab/modules/$module.ko
done
check "tc has a place for classifiers" $tc qdisc replace dev lo clsact
classify="$tc filter add dev lo ingress bpf direct-action obj $objects/classify.bpf.o sec tc"
fails "tc before" 'not permitted|rejected' $classify
fails "xdp-loader before" 'not permitted|error' xdp-loader load -m skb lo $objects/drop_port.bpf.o

for object in count_exec trace_unlink watch_open drop_port classify; do
    check "admit $object" admitted $object $objects/$object.bpf.o
done
for suite in bookworm sid; do
    for object in count_exec trace_unlink watch_open drop_port; do
        check "bpftool of $suite loads $object" bpftool-$suite prog loadall $objects/$object.bpf.o /sys/fs/bpf/$object
        rm -rf /sys/fs/bpf/$object
    done
done
for tool in bookworm/execsnoop bookworm/opensnoop sid/execsnoop-libbpf sid/opensnoop-libbpf; do
    called=${tool#*/}-${tool%/*}
    check "enroll $called" bpfseal enroll /opt/libbpf-tools-$tool --key release.key --name $called -o $called.tar
    prints "admit $called" 'admitted' $X admit $called.tar
    runs "$called" $called
done
check "ip loads" $ip link set lo xdpgeneric obj $objects/drop_port.bpf.o sec xdp
prints "ip attached" 'prog/xdp id [0-9]+' $ip link show lo
check "ip detaches" $ip link set lo xdpgeneric off
check "tc loads and attaches" $classify
prints "the classifier is there" 'classify.* id [0-9]+' $tc filter show dev lo ingress
check "tc detaches" $tc qdisc del dev lo clsact
# Structs of functions: each program as the member that the object makes it.
fails "a struct of functions before" 'Operation not permitted' $congest
check "admit a struct of functions" admitted congest $objects/congest.bpf.o
prints "and it is registered" 'Registered tcp_congestion_ops congest' $congest
bpftool struct_ops unregister id ${line##* } >/dev/null
if [ -e /sys/kernel/sched_ext ]; then
    fails "a scheduler before" 'Operation not permitted' $order
    check "admit a scheduler" admitted order $objects/order.bpf.o
    prints "and it schedules" 'Registered sched_ext_ops order' $order
fi

# libxdp with its dispatcher: two programs on one device.
check "admit the dispatcher" admitted xdp_dispatcher $bpf/xdp-dispatcher.o
check "admit a second program" admitted pass_all $objects/pass_all.bpf.o
check "xdp-loader loads through the dispatcher" xdp-loader load -m skb lo $objects/drop_port.bpf.o
prints "the dispatcher is on the device" 'xdp_dispatcher' xdp-loader status lo
check "xdp-loader loads a second program" xdp-loader load -m skb lo $objects/pass_all.bpf.o
prints "both are there" 'pass_all' xdp-loader status lo
check "xdp-loader unloads" xdp-loader unload -a lo
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
