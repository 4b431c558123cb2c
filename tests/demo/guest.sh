# The part of the demo that happens on a real kernel. STEP, SHOW and SAID lines are for people;
# CHECK lines decide.
X=bpfseal-enforcer
cd /demo
printf 'demo-guest\n' >/etc/machine-id

step() { echo "STEP $*"; }

# try COMMAND...: shows it and what it says; its exit code is in $code.
try() {
    echo "SHOW $*"
    "$@" >"$out" 2>&1
    code=$?
    head -n 14 "$out" | cut -c 1-200 | sed 's/^/SAID /'
}

# works WHAT COMMAND...: it has to succeed. turned_away WHAT COMMAND...: it has to fail, and
# say EPERM.
works() {
    what=$1
    shift
    try "$@"
    if [ $code -eq 0 ]; then ok "$what"; else failed "$what" "exit code $code"; fi
}
turned_away() {
    what=$1
    shift
    try "$@"
    if [ $code -ne 0 ] && grep -q -i 'not permitted\|-EPERM' "$out"; then
        ok "$what"
    else
        failed "$what" "exit code $code"
    fi
}
# What was tried last ended with code 1 and names the reason.
declined() {
    if [ $code -eq 1 ] && grep -q "$2" "$out"; then ok "$1"; else failed "$1" "exit code $code"; fi
}
event() {
    what=$1 pattern=$2
    echo "SHOW $X events | tail -n 3"
    $X events >"$out" 2>&1
    tail -n 3 "$out" | cut -c 1-300 | sed 's/^/SAID /'
    if tail -n 12 "$out" | grep -q -E "$pattern"; then ok "$what"; else failed "$what" "no event says $pattern"; fi
}
daemon() {
    rm -f /run/daemon.said
    mkfifo /run/daemon.said
    $X run >/run/daemon.said 2>&1 &
    daemon=$!
    exec 8</run/daemon.said
    while read -r line <&8; do
        case $line in
        "listening on "*)
            cat <&8 >/dev/null &
            return 0
            ;;
        esac
        echo "SAID $line"
    done
    # It ended.
    return 1
}
# Runs Debian's opensnoop for the seconds that its -d says, while something opens files.
opensnoop() {
    what=$1
    shift
    echo "SHOW opensnoop-libbpf $*"
    opensnoop-libbpf "$@" >"$out" 2>&1 &
    tool=$!
    # Until its time is over; it ends with 1 then, so what it saw decides.
    while kill -0 $tool 2>/dev/null; do
        cat /etc/machine-id /etc/no-machine-id >/dev/null 2>&1
    done
    wait $tool
    { head -n 1 "$out"; grep machine-id "$out" || tail -n 3 "$out"; } | head -n 4 | sed 's/^/SAID /'
    if grep -q 'cat .*machine-id' "$out"; then ok "$what"; else failed "$what" "it saw nothing"; fi
}

echo "SAID $(uname -sr), LSMs: $(cat /sys/kernel/security/lsm)"

step "7. Before arming: any root process loads any program. Without this, a refusal proves nothing"
works "an unsigned program loads" bpftool prog load drop_port.bpf.o /sys/fs/bpf/unsigned
rm -f /sys/fs/bpf/unsigned
opensnoop "Debian's opensnoop runs, though nobody signed it" -d 2

step "8. Arm the gate: BPF LSM programs, pinned; the policy's authority is pinned with them"
if daemon; then ok "the daemon runs"; else failed "the daemon runs" "see above"; fi
works "the gate proves a refusal before it says so" $X arm --policy policy.toml --authority authority.pub

step "9. Unsigned is refused, whoever asks"
turned_away "bpftool gets EPERM" bpftool prog load drop_port.bpf.o /sys/fs/bpf/unsigned
event "the event says who, what and why" 'bpftool'
turned_away "opensnoop, not admitted yet, is refused as well" opensnoop-libbpf -d 1

step "10. Admit what is signed: verified again from zero, measured for this kernel"
works "our bundle" $X admit pulled.tar
works "Debian's tool, signed by the fleet" $X admit opensnoop.tar
try $X admit unsigned.tar
declined "a bundle without signature is not admitted" no-signature
try $X admit tampered.tar
declined "a tampered bundle is not admitted" digest-mismatch

step "11. Signed loads, by tools that know nothing of bpfseal. One changed constant does not"
works "bpftool loads the signed program" bpftool prog load count_exec.bpf.o /sys/fs/bpf/signed
turned_away "the same program with one constant changed is refused" bpftool prog load tamper_exec.bpf.o /sys/fs/bpf/tampered
event "the event names the instruction that differs" 'E403 .*instruction [0-9]+.*"count_exec"'
opensnoop "opensnoop runs, with an option that it writes into its read-only data" -d 2
opensnoop "and with others" -x -u 0 -d 2
works "every program has a signer, or a reason" $X inventory

step "12. kill -9 the daemon: the gate does not need it"
try kill -9 $daemon
if [ $code -eq 0 ]; then
    wait $daemon
    ok "the daemon is dead"
else
    echo "SAID the gate protects its daemon: even root's kill -9 is refused"
    ok "the daemon cannot even be killed"
fi
turned_away "unsigned is still refused" bpftool prog load drop_port.bpf.o /sys/fs/bpf/unsigned
rm -f /sys/fs/bpf/signed
works "signed still loads" bpftool prog load count_exec.bpf.o /sys/fs/bpf/signed

step "13. Root edits the policy: it is a signed document, and its authority is pinned"
kill -0 $daemon 2>/dev/null || daemon || failed "the daemon starts again" "see above"
echo "SHOW sed -i 's/enforce/audit/' /var/lib/bpfseal/policy.toml"
sed -i 's/enforce/audit/' /var/lib/bpfseal/policy.toml || failed "root edits the policy" "no policy there"
try $X reload
declined "the edited policy is not taken" bad-authority
turned_away "unsigned is still refused" bpftool prog load drop_port.bpf.o /sys/fs/bpf/unsigned
try $X disarm
declined "disarming needs the authority's permit" needs-permit
try rm -rf /sys/fs/bpf/bpfseal
turned_away "and after an attempt to remove the pins, still refused" bpftool prog load drop_port.bpf.o /sys/fs/bpf/unsigned
try $X status
