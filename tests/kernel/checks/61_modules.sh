# Programs for functions of kernel modules: of the module for which they were measured, by its name
# and the content of its types, and of no other.
# modules: dummy dummy_other
. /lab/policy.sh
load="bpftool prog loadall $objects/trace_module.bpf.o /sys/fs/bpf/traced"
loads_once() { $load "$@" && rm -rf /sys/fs/bpf/traced; }
there() { insmod /lab/modules/$1.ko; }
# The kernel lets go of it some time after its last program is gone.
gone() { awaits rmmod dummy; }
check "the module is loaded" there dummy
check "before arming its function is traced" loads_once
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
refused "afterwards it is not" $load
prints "with the reason" 'E405 module-btf.*"count_dummies"' $X events
prints "the program is admitted" admitted admitted trace_module
check "and loads" loads_once
check "and counts" eval '$load pinmaps /sys/fs/bpf/maps autoattach && ip link add dummy7 type dummy &&
    bpftool map dump pinned /sys/fs/bpf/maps/*bss* | grep -q "\"made\": 1"'
rm -rf /sys/fs/bpf/traced /sys/fs/bpf/maps
ip link del dummy7

follow
check "the module goes" gone
fails "without it there is nothing to trace" 'dummy_setup' $load
check "the daemon notices" hear 'no program for one may load'
there dummy
refused "loaded anew it is another until the daemon has looked" $load
check "which it does" hear 'programs for dummy may load'
check "then the program loads again" loads_once
check "it goes again" gone
there dummy_other
refused "another module of that name is refused" $load
check "the daemon looks" hear 'no program for one may load'
refused "and does not take it for the first" $load
prints "until the operator does" . $X reload
check "then it is this one" loads_once
gone
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
