# Why something is refused, in words; and what would load on another kernel.
# spare: 6.12
. /lab/policy.sh
check "bundles are sealed" eval 'sealed count_exec 1.0 && sealed watch_open 1.0'
prints "arm" '^Enforcing' $arm
prints "admit count_exec" 'admitted +count_exec \([0-9]+ instructions\)$' $X admit count_exec.tar
prints "admit watch_open" 'admitted +watch_open \([0-9]+ instructions\)$' $X admit watch_open.tar
refused "one constant changed is refused" bpftool prog loadall $objects/tamper_exec.bpf.o /sys/fs/bpf/tamper
prints "explain finds the program" 'Nearest is "count_exec" of count_exec' $X explain
prints "explain names instruction, function and constant" 'instruction [0-9]+ \(number [0-9]+ of function "count_exec"\): the constant is -?[0-9]+, signed is -?[0-9]+' $X explain
prints "by JSON as well" '"same": false' $X explain --json
prints "one bundle in a file" 'Compared with [0-9]+ programs' $X explain count_exec.tar
refused "another program is refused" bpftool prog loadall $objects/drop_port.bpf.o /sys/fs/bpf/drop
prints "explain takes the last refusal" 'refused E401 unsigned.*xdp "drop_port"' $X explain
prints "or the one asked for" 'Nearest is "count_exec"' $X explain --program count_exec
printf odd >odd.insns
fails "a stream of odd length is refused" 'instructions have 8 each' $X explain --stream odd.insns
fails "nothing of that name" 'no refused program that fits' $X explain --program nobody
# A layout that no known loader makes: proved from the log, or from all of its instructions.
check "a program of several functions is sealed" sealed dispatch 1.0
prints "it is admitted" 'admitted +dispatch' $X admit dispatch.tar
otherwise="attacker otherwise $objects/dispatch.bpf.o dispatch other.insns"
fails "with two functions exchanged it is refused" 'not permitted' $otherwise
prints "explain proves that it is the same" 'It is the program "dispatch" of dispatch.*laid out as dispatch at 0' $X explain --program otherwise
fails "which changes nothing" 'not permitted' $otherwise
prints "but when asked to" 'This layout may load from now on' $X explain --program otherwise --admit
check "the loader's next try is let in" $otherwise
prints "the same by all of its instructions" 'It is the program "dispatch"' $X explain --stream other.insns dispatch
prints "this very kernel is ready" '^Ready' $X preflight --kernel /sys/kernel/btf/vmlinux
fails "a kernel without the functions is not" 'will NOT load +watch_open' $X preflight --kernel $objects/count_exec.bpf.o
check "which exits 5" sh -c "$X preflight --kernel $objects/count_exec.bpf.o; test \$? = 5"
fails "what is no kernel is refused" 'neither BTF, nor ELF' $X preflight --kernel /lab/release
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
:
