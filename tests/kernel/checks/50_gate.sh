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
attacker hold &
usleep 500000
/run/thief trace $!
kill $!
/run/thief load
attacker disarm
