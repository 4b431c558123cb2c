# `strict`: what was in the kernel before arming is said as long as it is there, first of all what can load
# programs; "Enforcing" is not.
# spare: 6.12 7.3
. /lab/policy.sh
sed -i 's/^mode = .*/&\nstrict = true/' policy.toml
check "a strict policy" bpfseal policy sign policy.toml --key authority.key
pins=/sys/fs/bpf/before
mkdir $pins
check "a program from before" bpftool prog load $objects/drop_port.bpf.o $pins/drop_port
check "a loader from before" bpftool prog load $objects/universal_loader.bpf.o $pins/loader
prints "arming does not say Enforcing" '^NOT enforcing strictly: 2 programs' $arm
prints "status does not say Enforcing" '^NOT enforcing strictly: 2 programs .*xdp [0-9]+ "drop_port"' $X status
prints "nor by JSON" '"enforcing": false' $X status --json
prints "what can load programs is a warning" 'WARNING .*\(type syscall\).*"load_input"' $X status
prints "and an alarm in the log" 'ALARM.*\(type syscall\).*"load_input"' $X events
refused "unsigned is refused all the same" bpftool prog load $objects/count_exec.bpf.o /sys/fs/bpf/unsigned
gone() { [ "$(programs $1)" = 0 ]; }
rm $pins/loader
check "the loader goes" awaits gone load_input
prints "one is left" '^NOT enforcing strictly: 1 program ' $X status
rm -r $pins
check "the program goes" awaits gone drop_port
prints "now it says so" '^Enforcing' $X status
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
