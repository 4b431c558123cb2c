# What was there before arming. Programs that answer in the gate's place: while one of them is there, nobody says
# "Enforcing". A kernel that waits to be started, which asks no hook.
# spare: 6.12
. /lab/policy.sh
check "a kernel is loaded" attacker kexec 1
prints "status says so" 'WARNING .*somebody has loaded a kernel that the next .reboot. may start' $X status
check "it is unloaded" attacker kexec 0
check "status says so no more" eval '! $X status | grep "next .reboot. may start"'
bpftool prog load $objects/hide_itself.bpf.o /sys/fs/bpf/hidden autoattach >/dev/null 2>&1
check "a program hides itself" eval '[ -e /sys/fs/bpf/hidden ] && [ "$(programs hide_itself)" = 0 ]'
prints "arming says that a program is hidden" '^NOT enforcing: .*may answer at bpf_prog \(' $arm
rm /sys/fs/bpf/hidden
is_seen() { $X status | grep '^Enforcing'; }
check "without it, status says that it enforces" awaits is_seen
permitted disarm
prints "disarm first" Disarmed $X disarm --permit disarm.permit
for function in security_bpf_prog security_bpf security_bpf_map security_inode_free; do
    rm -f answer
    check "before arming, a program is on $function" holding attacker instead $function /run/$SCRIPT/answer
    prints "arming says of $function that it does not enforce" "^NOT enforcing: tracing [0-9]+ \"instead\" may answer at $function before" $arm
    prints "so does status" "^NOT enforcing: tracing .*may answer at $function before" $X status
    prints "and by JSON" '"enforcing": false' $X status --json
    refused "others are refused" bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned
    if [ $function = security_bpf_prog ]; then
        echo >&8
        check "it tries" awaits test -s answer
        # Later kernels ask gate 1 before the verifier, at another hook, and what it refuses stays refused.
        case $(uname -r) in 6.1.*) said=loaded ;; *) said='Operation not permitted' ;; esac
        prints "what becomes of an unsigned program of its owner's" "unsigned: $said" cat answer
    fi
    released
    none() { [ "$(programs instead)" = 0 ]; }
    check "it goes" awaits none
    prints "without it, status says that it enforces" '^Enforcing' $X status
    permitted disarm
    prints "disarm" Disarmed $X disarm --permit disarm.permit
done
# The watchdog: on 6.1 one of these is enough for an unsigned program.
case $(uname -r) in 6.1.*) ;; *) exit 0 ;; esac
check "one will answer to everybody later on" holding attacker instead security_bpf_prog 30
check "the daemon starts" daemon 1s
prints "it arms, and refuses at first" 'an unsigned program was refused|^NOT enforcing: tracing' $arm
follow
check "the watchdog raises an alarm when it does not any more" hear 'NOT enforcing: an unsigned program'
prints "and status says so" '^NOT enforcing: the gate is armed but does not bite' $X status
released
check "it goes" awaits none
prints "then it bites again" '^Enforcing' $X status
kill -TERM $daemon
wait $daemon 2>/dev/null
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
