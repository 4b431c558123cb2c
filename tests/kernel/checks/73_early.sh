# Whoever gets hold of the enforcer before it has armed anything has nothing of it later.
# spare: 6.12
. /lab/policy.sh

ends() {
    kill -TERM $daemon
    awaits gone
}
gone() { ! [ -d /proc/$daemon ]; }
process() { daemon=$(sed -n 's/^process \([0-9]*\).*/\1/p' $1); }

mkfifo go
check "somebody opens the daemon's memory as it begins" \
    logging one.log 'listening on' attacker early hold go $X run --watch-every 5s
attacker=$started
process one.log
check "which can be written then" grep -q ': 8 bytes written' one.log
# Unarmed, and nobody else gets hold of it.
attacker grab $daemon guarded
prints "it arms" '^Enforcing' $arm
echo >go
check "he comes to his end" wait $attacker
check "and has written nothing" grep -q 'later: 0 bytes written' one.log
attacker grab $daemon guarded
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
attacker grab $daemon guarded
prints "it arms again" '^Enforcing' $arm
permitted disarm
prints "disarm again" Disarmed $X disarm --permit disarm.permit
check "it ends" ends

check "somebody traces the daemon from its beginning" logging two.log 'listening on' attacker early trace $X run --watch-every 5s
process two.log
# Whatever he did is done.
kill -KILL $started
wait $started 2>/dev/null
fails "that one does not arm" 'E705 cannot-enforce: .*traces this one' $arm
check "it ends too" ends
# /proc, where somebody says what he likes.
printf 'TracerPid:\t0\nSeccomp:\t0\n' >untraced
printf '%s\n' 'mount --bind untraced /proc/$$/task/$$/status && exec "$@"' >elsewhere
check "somebody traces it and says that he does not" logging three.log 'listening on' attacker early trace sh elsewhere $X run --watch-every 5s
process three.log
fails "the kernel knows better" 'arming the gate: .*somebody traces it' $arm
kill -KILL $started
wait $started 2>/dev/null
check "that one ends as well" ends

# What else keeps from arming.
fails "nobody arms in a mount namespace of his own" 'arming the gate: .*mount namespace of its own' unshare -m $arm
# 7.3 does not let anybody.
if echo 0 >/proc/sys/kernel/ftrace_enabled; then
    fails "nor with ftrace switched off" 'E705 cannot-enforce: kernel.ftrace_enabled is 0' $arm
    echo 1 >/proc/sys/kernel/ftrace_enabled
fi
prints "a command without a daemon arms" '^Enforcing' $arm
permitted disarm
prints "disarm at last" Disarmed $X disarm --permit disarm.permit
