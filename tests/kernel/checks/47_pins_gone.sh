# Somebody has found a way to take the mount of the pins away: here a mount that began before anybody guarded them,
# and slips in beneath them. What is left of the gate refuses every call of bpf().
# modules: fuse
# boot: pins=gone
# spare: 6.12
. /lab/policy.sh
grep -q -w fuse /proc/filesystems || check "FUSE is a module here" insmod /lab/modules/fuse.ko
mkdir -p /run/fuse /run/other
holding sh -c 'echo there; exec cat >/dev/null'
mount --make-rshared /
mount --bind /sys /run/other
mkfifo /run/go /run/waits
attacker detour /run/fuse /proc/$held /run/other/fs/bpf </run/go >/run/waits &
detour=$!
exec 5>/run/go 6</run/waits
exec 9>/proc/sys/kernel/ftrace_enabled
check "a mount begins" read -r -t 60 line <&6
check "the daemon starts" daemon 1s
check "nobody has mounted the control groups" umount /sys/fs/cgroup
prints "arm" '^Enforcing' $arm
check "now somebody has" mount -t cgroup2 cgroup2 /sys/fs/cgroup
prints "status says that the last word is there" 'last_word' $X status
check "what is signed loads" admitted count_exec
check "and is loaded" loads count_exec
echo >&5
wait $detour && ok "the mount ends" || failed "the mount ends" "$(cat <&6)"
exec 5>&- 6<&-
mkfifo /run/hammers
attacker hammer /run/enough >/run/hammers &
hammer=$!
exec 6</run/hammers
check "somebody tries all the time" read -r -t 60 line <&6
released
gone() { [ ! -e /sys/fs/bpf/bpfseal ]; }
check "it takes the pins along" awaits gone
# The kernel lets go of the gate's programs one after another, some time later.
for period in 1 2 3 4 5 6 7 8 9 10; do attacker grace; done
touch /run/enough
cat <&6
wait $hammer
exec 6<&-
mkdir /run/other.bpf
check "a BPF file system is mounted" mount -t bpf bpf /run/other.bpf
refused "no program is loaded" bpftool prog load $objects/drop_port.bpf.o /run/other.bpf/unsigned
refused "nor what is signed" bpftool prog loadall $objects/count_exec.bpf.o /run/other.bpf/count_exec
refused "nobody gets hold of a map" bpftool map show
refused "or of a program" bpftool prog show
refused "or takes the last word away" bpftool cgroup detach /sys/fs/cgroup lsm_cgroup id 1
fails "nobody switches ftrace off" 'not permitted' sh -c 'echo 0 >/proc/sys/kernel/ftrace_enabled'
fails "nor by a descriptor from before" 'not permitted' sh -c 'echo 0 >&9'
ended() { ! kill -0 $daemon 2>/dev/null; }
check "the daemon cannot go on" awaits ended
prints "it says why" "^error: .*somebody took the gate's pins away" cat daemon.log
prints "and raises an alarm" "ALARM.*somebody took the gate's pins away" $X events
fails "status says what happened" 'every call of bpf\(\) is refused, as somebody took the gate.s pins away' sh -c "$X status; exit 1"
fails "so does arming" 'E705.*every call of bpf\(\) is refused' $arm
