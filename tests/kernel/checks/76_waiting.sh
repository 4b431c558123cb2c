# A command that somebody has wait between reading what is in force and putting its change in force: nobody puts
# anything newer in force meanwhile, which it would undo. Its lock is the gate's own, whatever --runtime says.
# kernels: 6.1 7.3
. /lab/policy.sh
check "a bundle is sealed" sealed drop_port 1.0
policy 2 next.toml
printf 'version = 1\nissued = "2026-11-22T00:00:00Z"\n[[revoke]]\npackage = "drop_port"\nreason = "INC-1"\n' >list.toml
bpfseal revoke list.toml --key authority.key -o list.json >/dev/null 2>&1
prints "arm" '^Enforcing' $arm
prints "admit" admitted $X admit drop_port.tar
check "it loads" loads drop_port
elsewhere="bpfseal-enforcer --state /run/$SCRIPT/state --runtime /run/$SCRIPT/elsewhere"

# Whoever opens the file that the policy is written to waits until its owner lets it.
echo 600 >/proc/sys/fs/lease-break-time
mkfifo go held
attacker lease state/policy.toml.next.tmp <go >held &
exec 8>go 9<held
read -r -t 60 line <&9
$elsewhere arm --policy next.toml --authority authority.pub >slow.log 2>&1 &
slow=$!
read -r -t 60 line <&9
[ "$line" = "somebody waits" ] && ok "a command is made to wait" || failed "a command is made to wait" "$line: $(cat slow.log)"
check "another one waits for it, in spite of another lock" logging revoke.log "waiting for process $slow" $X revoke list.json
revoke=$started
check "meanwhile nothing changes" loads drop_port
echo go >&8
wait $slow && ok "the first one ends" "$(tail -n 1 slow.log)" || failed "the first one ends" "$(cat slow.log)"
wait $revoke && ok "and so does the second" "$(tail -n 1 revoke.log)" || failed "and so does the second" "$(cat revoke.log)"
prints "the policy of the first is in force" 'version 2' $X status
refused "what the second revoked is refused" bpftool prog loadall $objects/drop_port.bpf.o /sys/fs/bpf/again

# Whoever dies with it is no obstacle.
check "the daemon starts" daemon
fails "the daemon has it as long as it runs" "the daemon, process [0-9]+, changes the gate and nobody else" $elsewhere reload
kill -9 $daemon
wait $daemon 2>/dev/null
prints "it is killed, and commands change the gate again" 'version 2' $X reload
permitted disarm
check "disarm" $X disarm --permit disarm.permit
:
