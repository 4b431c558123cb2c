# The gate by itself, armed by hand with a few programs: each reason that the kernel side can
# give is caused once, and what is admitted loads. Then the gate is attacked from outside.
attacker gate
[ -d /sys/fs/bpf/bpfseal ] || exit 1

gate=/sys/fs/bpf/bpfseal
daemon=$(which attacker)
# Another file with the same content is not the daemon.
cp $daemon /run/thief
/run/thief steal
refused "a pin cannot be removed" rm $gate/link_gate2_prog
refused "a pin cannot be renamed" mv $gate/link_gate2_prog $gate/other
refused "a pin cannot be covered" mv /sys/fs/bpf/bpfseal/map_set $gate/link_gate2_prog
refused "the pins' folder cannot be renamed" mv $gate /sys/fs/bpf/away
fails "the pins' folder cannot be removed" . rmdir $gate
refused "the BPF file system cannot be unmounted" umount /sys/fs/bpf
refused "nor lazily" umount -l /sys/fs/bpf
refused "nor what it is mounted on" umount -l /sys
refused "the daemon's file cannot be removed" rm $daemon
refused "the daemon's file cannot be replaced" mv /run/thief $daemon
fails "the daemon's file cannot be written" 'not permitted' sh -c "echo >> $daemon"
[ "$(cat /proc/sys/kernel/ftrace_enabled)" = 1 ] &&
    fails "ftrace cannot be switched off" 'not permitted' sh -c 'echo 0 > /proc/sys/kernel/ftrace_enabled'
# The switch under other names: a bind mount, another procfs, another mount namespace.
if [ "$(cat /proc/sys/kernel/ftrace_enabled)" = 1 ]; then
    : >/run/switch
    mkdir -p /run/proc
    mount --bind /proc/sys/kernel/ftrace_enabled /run/switch
    mount -t proc proc /run/proc
    fails "nor by a bind mount" 'not permitted' sh -c 'echo 0 > /run/switch'
    fails "nor by another procfs" 'not permitted' sh -c 'echo 0 > /run/proc/sys/kernel/ftrace_enabled'
    fails "nor in a mount namespace of one's own" 'not permitted' \
        unshare -m sh -c 'mount -t proc proc /run/proc && echo 0 > /run/proc/sys/kernel/ftrace_enabled'
    fails "nor by sysctl" 'not permitted|denied' sysctl -w kernel.ftrace_enabled=0
    umount /run/switch /run/proc
fi
fails "the daemon's file cannot be truncated by opening it" 'not permitted' /run/thief truncate $daemon
# What takes the pins out of sight takes nothing away.
still() { /run/thief load >$out; grep -q 'CHECK ok' $out && ok "$1" || failed "$1" "$(said)"; }
unshare -m umount -l /sys/fs/bpf
still "unmounted in another mount namespace, it refuses"
mount -t tmpfs tmpfs /sys/fs/bpf
still "mounted over, it refuses"
umount /sys/fs/bpf
mount -o remount,ro /sys/fs/bpf
still "mounted read-only, it refuses"
mount -o remount,rw /sys/fs/bpf
mkdir -p /run/bpf
mount --bind /sys/fs/bpf /run/bpf
refused "a pin cannot be removed through a bind mount" rm /run/bpf/bpfseal/link_gate2_prog
umount /run/bpf 2>/dev/null
still "a bind mount of the pins changes nothing"
holding attacker hold
/run/thief trace $held
released
/run/thief load
attacker disarm
