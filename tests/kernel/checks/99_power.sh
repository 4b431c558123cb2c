# The machine is switched off with the gate armed and the daemon running: should the gate keep it
# from that, it would not end, and the boot fails. 80_loaders leaves its gate armed.
. /lab/policy.sh
[ -d /sys/fs/bpf/bpfseal ] || prints "arm" '^Enforcing' $arm
check "the daemon starts" daemon
refused "an unsigned program is refused" bpftool prog loadall $objects/tamper_exec.bpf.o /sys/fs/bpf/unsigned
fails "what is mounted goes, but for the pins" "can't unmount /sys/fs/bpf" umount /sys/fs/bpf
ok "the gate stays armed for the end"
