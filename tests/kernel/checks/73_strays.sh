# Programs that are attached where their rule does not say, which shows only afterwards: a device that was
# given another name stands for a descriptor that was exchanged. They are named, and none too many.
# kernels: 6.12 7.2 7.3
# modules: dummy
. /lab/policy.sh
sed -e 's|^scope = .*|scope = "*"\nattach = ["xdp:in*", "tracepoint:sched/*", "kprobe:vfs_*", "cgroup_skb:/kept*"]|' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
check "the module is loaded" insmod /lab/modules/dummy.ko
ip link add in0 type dummy
check "the daemon starts" daemon 1h
prints "arm" '^Enforcing' $arm
for name in drop_port keep_out count_exec trace_unlink; do
    prints "$name is admitted" admitted admitted $name
done
check "drop_port loads" bpftool prog loadall $objects/drop_port.bpf.o /sys/fs/bpf/strays
check "it is attached to a device" bpftool net attach xdpgeneric pinned /sys/fs/bpf/strays/drop_port dev in0
ip link add in2 type dummy
check "and to another one by a link" holding attacker attach xdp-link /sys/fs/bpf/strays/drop_port in2
mkdir -p /sys/fs/cgroup/kept/in
check "keep_out loads" bpftool prog loadall $objects/keep_out.bpf.o /sys/fs/bpf/kept
check "it is attached to a control group" \
    bpftool cgroup attach /sys/fs/cgroup/kept/in cgroup_inet_egress pinned /sys/fs/bpf/kept/keep_out multi
for name in count_exec trace_unlink; do
    check "$name loads and is attached" bpftool prog loadall $objects/$name.bpf.o /sys/fs/bpf/$name autoattach
done
none() { ! $X status | grep 'its rule allows'; }
check "none of them is elsewhere" none
ip link set in0 name out0
prints "a device with another name is" \
    'WARNING +xdp program [0-9]+ "drop_port" is attached at out0, interface out0 \(xdp\), and its rule allows in\*' $X status
prints "also by JSON" 'is attached at out0' $X status --json
prints "events have it" 'ALARM: attach: xdp program [0-9]+ "drop_port" is attached at out0' $X events
check "once" test "$($X events | grep -c 'ALARM: attach')" = 1
check "and it stays" eval 'bpftool net show dev out0 | grep -q xdp'
ip link set out0 name in1
ip link set in2 name out2
prints "by a link as well" \
    'WARNING +xdp program [0-9]+ "drop_port" is attached at out2, link [0-9]+ \(xdp\), and' $X status
ip link set out2 name in2
check "with a name that the rule has it is well" none
ip link del in1
released
ip link del in2
rm -rf /sys/fs/bpf/strays /sys/fs/bpf/kept /sys/fs/bpf/count_exec /sys/fs/bpf/trace_unlink
rmdir /sys/fs/cgroup/kept/in /sys/fs/cgroup/kept
rmmod dummy
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
