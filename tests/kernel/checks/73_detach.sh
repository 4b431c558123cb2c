# What was revoked is taken off devices, and nobody puts it back: tcx and netkit by link and by
# command, a classifier of tc, in other network namespaces as well, a struct of functions. Packets pass again.
# kernels: 6.12 7.2 7.3
# spare: 6.12
# tool: iproute2 ip tc
# modules: sch_ingress cls_bpf
. /lab/policy.sh
ip=/usr/sbin/ip tc=/usr/sbin/tc
pins=/sys/fs/bpf/detach
mkdir -p $pins
for module in sch_ingress cls_bpf; do check "$module is there" insmod /lab/modules/$module.ko; done
inside=
passes() { $inside ping -c 1 -W 2 "$1" >/dev/null 2>&1; }
held_back() { ! passes "$1"; }
# A pair of devices with an end in another network namespace.
holding unshare -n sh -c 'echo there; exec cat >/dev/null'
other=$held
check "netkit" sh -c "$ip link add hold0 type netkit peer name hold1 && $ip link set hold1 netns $other"
$ip addr add 10.9.0.1/24 dev hold0
$ip link set hold0 up
nsenter -t $other -n $ip addr add 10.9.0.2/24 dev hold1
nsenter -t $other -n $ip link set hold1 up
check "packets pass by netkit" passes 10.9.0.2
check "packets pass by lo" passes 127.0.0.1

sed -e 's/^scope = .*/scope = "*"\nprogram_types = ["sched_cls", "struct_ops"]\nload_targets = ["*"]/' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
check "bundles are sealed" eval 'sealed hold_back 1.0 && sealed classify 1.0 && sealed congest 1.0'
# Version N revokes what is named: an empty list gives everything back.
list() {
    printf 'version = %s\nissued = "2026-11-22T00:00:00Z"\n' $1 >list-$1.toml
    shift_to=$1
    shift
    for package in "$@"; do
        printf '[[revoke]]\npackage = "%s"\nreason = "INC-4712"\n' $package >>list-$shift_to.toml
    done
    bpfseal revoke list-$shift_to.toml --key authority.key -o list-$shift_to.json >/dev/null 2>&1
}
version=0
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
for name in hold_back classify congest; do prints "admit $name" admitted $X admit $name.tar; done

# hook NAME DEVICE ADDRESS COMMAND...: attached, it holds packets back; revoked, they pass; and it
# cannot be attached again by whoever kept a pin.
hook() {
    what=$1 device=$2 address=$3
    shift 3
    check "hold_back loads for $what" bpftool prog loadall $objects/hold_back.bpf.o $pins/one
    "$@" >hook.said 2>&1 <&6 &
    hook=$!
    exec 7<hook.said
    if hear attached; then ok "it is attached by $what"; else failed "it is attached by $what" "$line"; fi
    check "packets are held back by $what" held_back $address
    version=$((version + 1))
    list $version hold_back
    prints "revoked and detached: $what" "detached from .*$device|detached from link" $X revoke list-$version.json
    check "packets pass after $what" passes $address
    fails "it is not attached again by $what" 'not permitted' "$@"
    prints "the reason is said: $what" 'revoked-attach' $X events
    kill $hook 2>/dev/null
    wait $hook 2>/dev/null
    rm -rf $pins/one
    version=$((version + 1))
    list $version
    prints "given back after $what" "version $version is in force" $X revoke list-$version.json
    prints "admitted again after $what" admitted $X admit hold_back.tar
}
# Links are held as long as nobody closes this.
mkfifo open hook.said
exec 6<>open
hook tcx-link lo 127.0.0.1 attacker attach tcx-link $pins/one/hold_back lo
hook tcx-command lo 127.0.0.1 attacker attach tcx-command $pins/one/hold_back lo
hook netkit-link hold0 10.9.0.2 attacker attach netkit-link $pins/one/hold_back hold0
hook netkit-command hold0 10.9.0.2 attacker attach netkit-command $pins/one/hold_back hold0
check "clsact" $tc qdisc add dev lo clsact
cat >filter.sh <<F
$tc filter add dev lo ingress bpf direct-action object-pinned $pins/one/hold_back && echo attached
F
hook 'a classifier' 'interface lo .tc ingress' 127.0.0.1 sh filter.sh
check "no classifier is left" sh -c "! $tc filter show dev lo ingress | grep -q hold_back"
# Where the daemon is not: in the network namespace of a process, and in one that is only mounted.
there="nsenter -t $other -n"
network='of network namespace [0-9]+'
hook 'tcx in another namespace' "interface hold1 .tcx or netkit. $network" 10.9.0.2 \
    $there attacker attach tcx-command $pins/one/hold_back hold1
check "clsact there" $there $tc qdisc add dev hold1 clsact
cat >filter.sh <<F
$there $tc filter add dev hold1 ingress bpf direct-action object-pinned $pins/one/hold_back && echo attached
F
hook 'a classifier in another namespace' "interface hold1 .tc ingress.* $network" 10.9.0.2 sh filter.sh
check "a namespace of nobody" $ip netns add nobody
inside="nsenter --net=/run/netns/nobody"
$inside $ip link set lo up
check "packets pass in it" passes 127.0.0.1
hook 'tcx in a mounted namespace' "interface lo .tcx or netkit. $network" 127.0.0.1 \
    $inside attacker attach tcx-command $pins/one/hold_back lo
inside=
$ip netns del nobody
umount /run/netns

# Others stay: two classifiers, of which one is revoked.
check "both load" eval 'bpftool prog loadall $objects/hold_back.bpf.o $pins/one && bpftool prog loadall $objects/classify.bpf.o $pins/two'
check "one is attached" $tc filter add dev lo egress bpf direct-action object-pinned $pins/two/classify
check "and the other" $tc filter add dev lo egress bpf direct-action object-pinned $pins/one/hold_back
version=$((version + 1))
list $version hold_back
prints "one of two is revoked" 'interface lo .tc egress pref [0-9]+ handle 0x1' $X revoke list-$version.json
check "packets pass again" passes 127.0.0.1
prints "the other stays" classify $tc filter show dev lo egress

# What a map runs: an array for tail calls, whose pin somebody keeps.
array=/sys/fs/bpf/calls
check "an array" bpftool map create $array type prog_array key 4 value 4 entries 2 name calls
check "hold_back is given back" eval 'version=$((version + 1)); list $version; $X revoke list-$version.json && $X admit hold_back.tar'
check "hold_back loads to be called" bpftool prog loadall $objects/hold_back.bpf.o $pins/three
put="bpftool map update pinned $array key 1 0 0 0 value pinned $pins/three/hold_back"
check "it is put into the array" $put
version=$((version + 1))
list $version hold_back
prints "revoked and out of the array" 'detached from map [0-9]+ .tail calls. key 1' $X revoke list-$version.json
check "nothing is called any more" sh -c "! bpftool map lookup pinned $array key 1 0 0 0 2>&1 | grep -q value:"
fails "it is not put into the array again" 'not permitted' $put

# A struct of functions that was loaded before its revocation is registered no more.
register() {
    mkfifo $1.go $1.said
    attacker register $objects/congest.bpf.o <$1.go >$1.said 2>&1 &
    process=$!
    exec 5>$1.go 7<$1.said
    hear loaded
}
# goes_on: it tries to register; how that ended is in $line.
goes_on() {
    echo go >&5
    read -r -t 60 line <&7
    wait $process
}
register first
goes_on
prints "an admitted struct of functions is registered" '^registered' echo "$line"
register second
version=$((version + 1))
list $version hold_back congest
prints "it is revoked" "version $version is in force" $X revoke list-$version.json
goes_on
prints "a revoked struct of functions is not registered" 'not registered: .*not permitted' echo "$line"
exec 5>&- 6>&- 7<&-
released
rm -rf $pins
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
