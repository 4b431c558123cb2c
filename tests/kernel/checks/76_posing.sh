# Whoever executes the daemon's file is the daemon, whoever told him to. So that file must not be led astray: by
# what is mounted where it looks, by its namespaces, or through what it starts itself.
. /lab/policy.sh
attacker pose
attempt="bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned"
check "a bundle is sealed" sealed count_exec 1.0
check "another one" sealed watch_open 1.0
head -c 3000 /lab/policy.sh >junk.tar
for map in guards set own; do
    fails "who gets hold of $map meanwhile is seen" "somebody else got hold of the gate's map $map" attacker greedy $map $arm
    prints "and nothing of it stays" 'the gate is not armed' $X status
done
fails "who takes a program off its hook meanwhile is seen" "somebody took the gate's program guard_trace away" attacker slip $arm
prints "and nothing of that stays" 'the gate is not armed' $X status
mkdir -p groups
mount -t cgroup2 none groups
attacker grasp groups $arm
umount groups
prints "it enforces then" '^Enforcing' $X status
permitted disarm
prints "disarm it" Disarmed $X disarm --permit disarm.permit
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
check "the daemon runs its file" grep -q 'r-xp.*bpfseal-enforcer' /proc/$daemon/maps
check "and no variable of its is in that file's memory, where the kernel counts breakpoints" eval '! grep "rw-p.*bpfseal-enforcer" /proc/$daemon/maps'
attacker window /lab/bin/bpfseal-enforcer $X admit junk.tar
prints "the daemon goes on" '^Enforcing' $X status

# Types of the kernel that somebody else wrote.
mount --bind /lab/policy.sh /sys/kernel/btf/vmlinux
prints "a program is measured by the kernel's own types" admitted $X admit count_exec.tar
umount /sys/kernel/btf/vmlinux
check "so it loads" loads count_exec
kill -TERM $daemon
wait $daemon 2>/dev/null

# Whoever took its socket is not believed.
logging impostor.log listening attacker answer run/control.sock
impostor=$started
fails "somebody who answers in the daemon's place is not believed" "process $impostor listens on the control socket and is not the daemon" $X selftest
prints "status says who answers, and measures by itself" "process $impostor listens on the control socket" $X status
grep -q '^Enforcing' $out && ok "what it says is true" || failed "what it says is true" "$(said)"
kill $impostor
wait $impostor 2>/dev/null

# Without a daemon each command does the work, and starts itself again for it.
printf '%s\n' 'mount -t tmpfs tmpfs /proc && mkdir /proc/self && cp /usr/bin/busybox /proc/self/exe && exec "$@"' >elsewhere
fails "where /proc is not the kernel's, nothing else is executed" 'is not the file that the gate obeys' unshare -m sh elsewhere $X admit watch_open.tar
refused "nothing was admitted" bpftool prog loadall $objects/watch_open.bpf.o /sys/fs/bpf/watch_open
for kind in pid time user; do
    fails "in another namespace of $kind it is not the daemon" 'start the command again' attacker apart $kind $X status
done
fails "whose system calls somebody filters is not the daemon" 'start the command again' attacker filtered $X status
fails "who shares a working directory with somebody is not the daemon" 'start the command again' attacker sharing $X status
exe=$(command -v bpfseal-enforcer)
echo "p:probed $exe:$(attacker entry $exe)" >/sys/kernel/tracing/uprobe_events
echo 1 >/sys/kernel/tracing/events/uprobes/probed/enable
fails "whose code somebody put breakpoints into is not the daemon" 'start the command again' $X status
echo 0 >/sys/kernel/tracing/events/uprobes/probed/enable
echo >/sys/kernel/tracing/uprobe_events
# A worker that reads a bundle has no mark, and what it says decides.
fails "whose worker somebody put breakpoints into believes it nothing" \
    'E605.*breakpoints into a worker' attacker bugged $exe $(attacker entry $exe) $X admit watch_open.tar
refused "nothing was admitted by that" bpftool prog loadall $objects/watch_open.bpf.o /sys/fs/bpf/watch_open
prints "without them it is admitted" admitted $X admit watch_open.tar
pins=/sys/fs/bpf/bpfseal
# One that has the sizes of `own`, where this kernel has it; others differ in theirs from any.
like=$pins/map_owners
[ -e $like ] || like=$pins/map_marks
printf '%s\n' 'map=$1 && shift && mount --bind $like $map && exec "$@"' >covered
fails "another of the gate's maps in the place of the list of its own is not taken for it" \
    'own in .* is no map that the gate|map own has keys and values of 4 and 8' \
    unshare -m env like=$like sh covered $pins/map_own $X status
prints "in the first ones it is" '^Enforcing' $X status
grep -q "writes to the disk below the daemon's file" $out && ok "what the disk below could change is said" || failed "what the disk below could change is said" "$(said)"
refused "and unsigned is refused" $attempt
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
:
