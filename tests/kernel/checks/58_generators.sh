# Generators: one program, known by its contents, may load what nobody signed, within limits.
# Copies, other contents, other code in its process and those who trace it gain nothing.
. /lab/policy.sh
maker=/run/maker
cp /lab/bin/maker $maker
sum=$(sha256sum $maker | cut -d' ' -f1)
real=$(which bpftool)
generators() {
    cat policy.toml
    cat <<P
[[generator]]
name = "maker"
exe = { path = "$maker", sha256 = "$sum" }
program_types = ["socket_filter", "xdp"]
map_types = ["array"]
max_insns = 100
[[generator]]
name = "as nobody"
exe = { path = "/run/maker-user", sha256 = "$sum" }
program_types = ["socket_filter"]
uid = 65534
[[generator]]
name = "in a group"
exe = { path = "/run/maker-group", sha256 = "$sum" }
program_types = ["socket_filter"]
cgroup = "/makers"
[[generator]]
name = "by permit"
exe = { path = "/run/maker-permit", sha256 = "$sum" }
program_types = ["socket_filter", "kprobe"]
permit = true
[[generator]]
name = "dynamic"
$(pinned $real)
program_types = ["socket_filter", "kprobe", "tracepoint", "xdp", "tracing", "cgroup_sock"]
P
}
for kind in user group permit; do cp $maker /run/maker-$kind; done
cp $maker /run/copy
mkdir -p /sys/fs/cgroup/makers
generators >with.toml
sed -i 's/^version = .*/version = 2/' with.toml
check "the policy with generators is sound" bpfseal policy check with.toml
check "the authority signs it" bpfseal policy sign with.toml --key authority.key
prints "without a gate it loads" loaded $maker
check "the daemon starts" daemon
exec 9>>/run/maker-permit
prints "arm without generators" '^Enforcing' $arm
fails "before the policy names it" 'errno 1' $maker
prints "the policy with generators" '^Enforcing' $X arm --policy with.toml --authority authority.pub
prints "status says how many" '^Enforcing.*; 5 generators: their programs are not attested' $X status
prints "by JSON as well" '"name": "maker"' $X status --json
prints "whose file somebody can write is not let in" 'by permit: not let in.*open for writing' $X status
exec 9>&-

prints "the generator loads" loaded $maker
prints "another type of its own" loaded $maker type 6
prints "with a map" loaded $maker map 2
refused "a type that it may not" $maker type 2
refused "another kind of map" $maker map 1
refused "more instructions" $maker long 200
# 6.1 to 6.8: the verifier speaks before the refusal takes effect.
fails "a call that is forbidden" 'errno (1|22)$' $maker call 36
prints "the event says which limit" 'E430 generator-limit.*a call that it may not make' $X events
holding $maker hold
prints "inventory has a class for it" 'generated ' $X inventory
prints "status counts it" '1 made by generators, not attested' $X status
released

refused "a copy" /run/copy
refused "a copy by a memory file" sh -c 'cat /run/maker >/run/tmp-maker; chmod +x /run/tmp-maker; /run/tmp-maker'
refused "executable memory" $maker anonymous
refused "memory made executable" $maker protect
refused "foreign code" $maker code /bin/busybox
refused "a foreign library without code" $maker library /bin/busybox
prints "foreign data are no code" loaded $maker data /bin/busybox
refused "a child" $maker fork
refused "one who asks to be traced" $maker traceme
refused "one who opens its own memory to write" $maker memory
fails "one whose system calls somebody filters" 'errno 1' attacker filtered $maker
# Breakpoints in its code, which the kernel writes into its copy.
echo "p:probed $maker:$(attacker entry $maker)" >/sys/kernel/tracing/uprobe_events
echo 1 >/sys/kernel/tracing/events/uprobes/probed/enable
fails "one with somebody's breakpoints" 'errno 1' $maker
# The kernel forgets those that are gone when one is hit that it did not make.
mkfifo /run/maker.in /run/maker.said
$maker trap </run/maker.in >/run/maker.said &
exec 7>/run/maker.in 6</run/maker.said
read -r waiting <&6
echo 0 >/sys/kernel/tracing/events/uprobes/probed/enable
echo >/sys/kernel/tracing/uprobe_events
echo >&7
prints "one who had breakpoints that the kernel forgot" 'errno 1$' head -n 1 <&6
exec 6<&- 7>&-
prints "without them it loads" loaded $maker
refused "what it executes" $maker exec /run/copy load
prints "itself again" loaded $maker exec $maker load
attacker follow $maker
fails "its file cannot be written" 'not permitted' sh -c "echo >>$maker"
fails "nor truncated" 'not permitted' /lab/bin/attacker truncate $maker
prints "the event says so" 'E609 generator-file' $X events
cp $maker /run/newer
printf x >>/run/newer
mv /run/newer $maker
refused "another file in its place" $maker
cp /run/copy /run/again
mv /run/again $maker
check "look again" $X status
prints "the right file in its place, once looked at" loaded $maker

refused "another user" /run/maker-user
refused "outside its control group" /run/maker-group
prints "in its control group" loaded sh -c 'echo $$ >/sys/fs/cgroup/makers/cgroup.procs; exec /run/maker-group'
refused "without a permit" /run/maker-permit
fails "a permit for another generator" 'E704 permit-scope' sh -c "bpfseal permit --action generator --generator maker --host guest-1234 --for 1h --reason test --key authority.key >other.permit && $X enable 'by permit' --permit other.permit"
check "a permit" sh -c "bpfseal permit --action generator --generator 'by permit' --host guest-1234 --for 20s --reason test --key authority.key >its.permit"
prints "enable" 'may load programs until' $X enable "by permit" --permit its.permit
prints "with a permit" loaded /run/maker-permit
fails "the permit is good once" 'E704 permit-scope' $X enable "by permit" --permit its.permit
case $(uname -r) in
6.*) fails "older kernels let no program write registers" 'errno 13' /run/maker-permit registers ;;
*) refused "one that writes registers" /run/maker-permit registers ;;
esac
follow
check "the log says when it is over" hear 'by permit is not let in'
refused "after its end" /run/maker-permit

check "a dynamic program with pinned libraries" $real prog load $objects/drop_port.bpf.o /sys/fs/bpf/made
rm -f /sys/fs/bpf/made
library=$(ldd_of /lab/bin/attacker | grep -v ld-linux | head -n 1)
cp $library /run/foreign.so
refused "with a preloaded library" env LD_PRELOAD=/run/foreign.so $real prog load $objects/drop_port.bpf.o /sys/fs/bpf/made
kill -9 $daemon
wait $daemon 2>/dev/null
check "the daemon starts again" daemon
prints "the generator loads after the restart" loaded $maker
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
check "after disarming the file can be written" sh -c "printf x >>/run/maker-user"
:
