# Programs that call functions of kernel modules: of the modules for which they were measured, by name
# and content, and of no other under the same number.
# modules: tcp_dctcp tcp_dctcp_other
. /lab/policy.sh
load="bpftool prog loadall $objects/call_module.bpf.o /sys/fs/bpf/calling"
loads_once() { $load && rm -rf /sys/fs/bpf/calling; }
there() { insmod /lab/modules/$1.ko; }
gone() { awaits rmmod tcp_dctcp; }
sed -e 's/^scope = .*/scope = "*"\nprogram_types = ["struct_ops"]\nload_targets = ["*"]/' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
check "the module is loaded" there tcp_dctcp
check "before arming it is called" loads_once
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
refused "afterwards it is not" $load
prints "with the reason" 'E405 module-btf.*"call_' $X events
prints "the programs are admitted" admitted admitted call_module
check "and load" loads_once

follow
check "the module goes" gone
check "the daemon notices" hear 'no program for one may load'
there tcp_dctcp
refused "loaded anew it is another until the daemon has looked" $load
check "which it does" hear 'programs for tcp_dctcp may load'
check "then the programs load again" loads_once
check "it goes again" gone
there tcp_dctcp_other
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
