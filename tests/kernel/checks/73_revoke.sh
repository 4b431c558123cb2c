# Revocation: what is on the authority's list loads no more within a second, what is attached
# is taken off where the kernel allows it, and the rest is named with its owner.
. /lab/policy.sh
check "bundles are sealed" eval 'sealed drop_port 1.0 && sealed keep_out 1.0 && sealed count_exec 1.0 && sealed watch_open 1.0'
list() {
    { printf 'version = %s\nissued = "2026-11-22T00:00:00Z"\n' $1; cat; } >list-$1.toml
    bpfseal revoke list-$1.toml --key ${2:-authority}.key -o list-$1.json >/dev/null 2>&1
}
row() { printf '[[revoke]]\n%s\nreason = "INC-4711"\n' "$1"; }
row 'package = "drop_port"
versions = "<=1.0"' | list 1
{ row 'package = "drop_port"'; row 'package = "count_exec"'; row 'package = "keep_out"'; } | list 2
printf '' | list 9 release

# beside FIFO COMMAND...: one more that stays until it is killed; waits for its first line, $beside is its process.
mkfifo open
exec 6<>open
beside() {
    into=$1
    shift
    mkfifo $into
    "$@" <&6 >$into &
    beside=$!
    read -r -t 60 line <$into
}
gone() { [ "$(programs $1)" = 0 ]; }

check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
for name in drop_port keep_out count_exec watch_open; do prints "admit $name" admitted $X admit $name.tar; done
check "drop_port loads" bpftool prog loadall $objects/drop_port.bpf.o /sys/fs/bpf/drop
check "it is attached to an interface" bpftool net attach xdpgeneric pinned /sys/fs/bpf/drop/drop_port dev lo
prints "XDP is there" 'drop_port|id [0-9]+' bpftool net show dev lo
# In another network namespace as well.
beside there unshare -n sh -c 'echo there; exec cat >/dev/null'
elsewhere=$beside
check "it is attached in another network namespace" \
    nsenter -t $elsewhere -n bpftool net attach xdpgeneric pinned /sys/fs/bpf/drop/drop_port dev lo
prints "XDP is there, too" 'generic id' nsenter -t $elsewhere -n bpftool net show dev lo
# By command, without a link; nothing but the control group holds it.
mkdir -p /sys/fs/cgroup/kept/out
check "keep_out loads" bpftool prog loadall $objects/keep_out.bpf.o /sys/fs/bpf/keep
check "it is attached to a control group" \
    bpftool cgroup attach /sys/fs/cgroup/kept/out cgroup_inet_egress pinned /sys/fs/bpf/keep/keep_out multi
rm -rf /sys/fs/bpf/keep
prints "it is there" 'keep_out' bpftool cgroup show /sys/fs/cgroup/kept/out
holding loader $objects/count_exec.bpf.o
loader=$held
case "$line" in *attached) ok "count_exec is attached" "$line" ;; *) failed "count_exec is attached" "$line" ;; esac
check "another one is attached by a pinned link" \
    bpftool prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/linked autoattach
check "and one loads for a perf event" bpftool prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/event
beside event.said attacker attach event-ioctl /sys/fs/bpf/event/count_exec sched/sched_process_exec
event=$beside
prints "it is attached by ioctl" '^attached' echo "$line"
rm -rf /sys/fs/bpf/event

fails "a list that the authority did not sign is refused" 'E701 bad-authority' $X revoke list-9.json
check "and changes nothing" loads watch_open
prints "revoke" 'list version 1 is in force' $X revoke list-1.json
refused "revoked is refused at once" bpftool prog loadall $objects/drop_port.bpf.o /sys/fs/bpf/again
prints "the event names the entry" 'drop_port.*INC-4711' $X events
check "XDP is gone from the interface" sh -c '! bpftool net show dev lo | grep -q "generic id"'
check "XDP is gone from the other network namespace" \
    sh -c "! nsenter -t $elsewhere -n bpftool net show dev lo | grep -q 'generic id'"
prints "which is named" 'drop_port.*detached from .*interface lo \(xdp\) of network namespace [0-9]+' $X events
prints "a pin of it is named" 'drop_port.*pinned at /sys/fs/bpf/drop/drop_port: remove that' $X events
prints "still loaded is said" 'revoked programs are STILL LOADED' $X status
prints "by JSON as well" '"still_loaded": ?1' $X status --json
fails "it is not admitted again" 'E309 revoked' $X admit drop_port.tar
check "others load" loads watch_open

# A list that somebody else brought, as a fetcher does: found without being told.
follow
start=$(cut -d. -f1 /proc/uptime)$(cut -d. -f2 /proc/uptime | cut -c1-2)
cp list-2.json state/revocations/new.tmp && mv state/revocations/new.tmp state/revocations/new.json
hear 'list version 2 is in force' || failed "the list in the folder is found" "nothing was logged"
end=$(cut -d. -f1 /proc/uptime)$(cut -d. -f2 /proc/uptime | cut -c1-2)
ok "the list in the folder took effect" "after $((end - start))0 ms, reaching what is loaded included"
again="bpftool prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/again"
refused "what it names is refused" $again
check "it is gone from the control group" sh -c '! bpftool cgroup show /sys/fs/cgroup/kept/out | grep -q keep_out'
prints "and where it was is said" 'keep_out.*control group /kept/out' $X events
prints "its owner is named" "count_exec.*loaded by loader \\(pid $loader.*held by [^ ]*loader" $X events
prints "who has a perf event of it is named" "count_exec.*held by [^ ]*attacker \\(pid $event\\): end it" $X events
prints "a pinned link is named" 'count_exec.*pinned at /sys/fs/bpf/linked/count_exec \(link\): remove that' $X events
prints "it is said when nobody is found" 'keep_out.*nobody was found who holds it.*reboot' $X events
fails "an older list is refused" 'E706 older-revocation' $X revoke list-1.json
rm -rf state/revocations/*
kill -9 $daemon
wait $daemon 2>/dev/null
check "the daemon starts without the list" daemon
refused "what was revoked is refused all the same" $again
check "what was not loads" loads watch_open
fails "nothing is admitted without the list" 'E706 older-revocation' $X admit watch_open.tar
prints "status says why" 'NOT taken: E706' $X status
prints "the list comes back" 'version 2 is in force' $X revoke list-2.json
prints "admit again" admitted $X admit watch_open.tar
# What the lines say is to be done.
rm -rf /sys/fs/bpf/drop
check "without its pin the program is gone" awaits gone drop_port
released
kill $event $elsewhere
wait $event $elsewhere 2>/dev/null
exec 6>&-
rm -rf /sys/fs/bpf/linked
check "without its holders the other one is gone" awaits gone count_exec
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
