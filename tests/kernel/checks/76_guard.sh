# The daemon and what it stands on under attack: stopped, frozen, starved, robbed, its pins covered.
# The gate goes on, and `status` says what is wrong.
. /lab/policy.sh
attempt="bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned"
check "a bundle is sealed" sealed count_exec 1.0
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
prints "admit" admitted $X admit count_exec.tar
prints "the headline says what the policy leaves open" '^Enforcing.*; left open by the policy: unsigned_modules' $X status
prints "by JSON as well" '"remaining"' $X status --json
prints "the self test tries kexec" 'passed: kexec is closed: EPERM' $X selftest
prints "and memory" 'passed: dev_mem is closed: EPERM' $X selftest

holding attacker hold
attacker grab $held
released
attacker grab $daemon guarded
attacker links
others() { # processes that hold maps of anybody's, but the daemon
    for fd in /proc/[0-9]*/fd/*; do
        case $(readlink $fd) in anon_inode:bpf-map) echo $fd ;; esac
    done | grep -v "^/proc/$daemon/"
}
check "nobody but the daemon holds maps" sh -c "test -z '$(others)'"
for fd in $(ls /proc/$daemon/fd); do
    if [ "$(readlink /proc/$daemon/fd/$fd)" = anon_inode:bpf-map ]; then break; fi
done
fails "a map is not opened through /proc" 'No such device' sh -c ": </proc/$daemon/fd/$fd"

kill -STOP $daemon
refused "with the daemon stopped" $attempt
prints "status measures without it" '^Enforcing' $X status
grep -q 'does NOT answer' $out && ok "and says that it does not answer" || failed "and says that it does not answer" "$(said)"
kill -CONT $daemon
prints "once it goes on it answers" 'daemon +running' $X status
mkdir -p /sys/fs/cgroup/frozen
echo $daemon >/sys/fs/cgroup/frozen/cgroup.procs
echo 1 >/sys/fs/cgroup/frozen/cgroup.freeze
check "the daemon is frozen" attacker frozen /sys/fs/cgroup/frozen
refused "with the daemon frozen" $attempt
echo 0 >/sys/fs/cgroup/frozen/cgroup.freeze
echo $daemon >/sys/fs/cgroup/cgroup.procs
rmdir /sys/fs/cgroup/frozen
kill -TERM $daemon
wait $daemon 2>/dev/null

# A daemon that the kernel kills for want of memory.
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p /sys/fs/cgroup/starved
echo $$ >/sys/fs/cgroup/starved/cgroup.procs
check "the daemon starts where there is little memory" daemon
echo $$ >/sys/fs/cgroup/cgroup.procs
echo 4096 >/sys/fs/cgroup/starved/memory.max
wait $daemon 2>/dev/null
check "the kernel kills it" grep -q -E '^oom_kill [1-9]' /sys/fs/cgroup/starved/memory.events
refused "with the daemon killed for want of memory" $attempt
prints "status says that nobody watches" 'NOT running: the gate holds' $X status
rmdir /sys/fs/cgroup/starved

# What lies over the pins does not hide the gate.
pins=/sys/fs/bpf
for cover in "mount -t tmpfs tmpfs $pins" "mount -t bpf bpf $pins && mkdir $pins/bpfseal" "mount -t tmpfs tmpfs /sys/fs"; do
    sh -c "$cover"
    refused "after $cover the gate refuses" maker
    prints "after $cover status knows" '^Enforcing' $X status
    grep -q "mounted something over the gate's pins" $out && ok "and says what was done" || failed "and says what was done" "$(said)"
    fails "after $cover nobody arms another one" 'E70|another authority|already' $X arm --policy policy.toml --authority release.pub
    sh -c "umount ${cover##* }" 2>/dev/null || umount $pins
done
prints "uncovered, all is as before" '^Enforcing' $X status
check "nothing is said then" sh -c "! grep -q 'mounted something over' $out"
check "what was admitted loads" loads count_exec
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
:
