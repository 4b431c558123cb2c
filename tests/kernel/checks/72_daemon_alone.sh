# Commands without a daemon: audit first, then an arming that nobody confirms, then one that
# somebody does. Works on with the keys and policies of 70_daemon.
# spare: 6.12 7.3
X=bpfseal-enforcer
cd /run/daemon
PATH=/run/daemon:$PATH
permit() {
    bpfseal permit --action disarm --host guest-1234 --for 1h --reason test --key authority.key >$1.permit 2>/dev/null
}
arm="$X arm --policy newer.toml --authority authority.pub"

# Whoever dies while arming leaves no gate that only looks like one.
for moment in "bpfseal 1" "map_ 1" "link_ 1" "link_ 20"; do
    attacker cut-off $moment $arm
    prints "after that ($moment) nothing is armed" 'the gate is not armed' $X status
done
prints "audit is said" 'Audit only, because --audit-only' $arm --audit-only
check "unsigned loads in audit" unsigned
rm -rf /sys/fs/bpf/unsigned
prints "audit saw it" 'let pass \(audit\) E401 unsigned.*drop_port.*bpftool' $X events
prints "suggest says what to sign" 'bpfseal pack FILE\.o -o FILE\.tar --name bpftool' $X suggest
prints "suggest has a rule" '^scope = "bpftool"' $X suggest
prints "status does not pretend" '^Audit only' $X status
prints "admit without a daemon" 'admitted +count_exec' $X admit count.tar
prints "enforce after audit, for a while" 'Enforcing: an unsigned program was refused' $arm --confirm-within 1h
grep -q 'provisional  falls back to audit in 3600 s' $out && ok "it says how long" || failed "it says how long" "$(said)"
prints "it is not final" '^Enforcing, but not confirmed: .*; left open by the policy: unsigned_modules' $X status
fails "what enforces does not become provisional" 'the gate enforces already' $arm --confirm-within 1h
check "somebody confirms" $X arm --confirm
prints "it is final" '^Enforcing: ' $X status
refused "unsigned is refused" unsigned
check "signed loads" signed
permit one
check "disarm" $X disarm --permit one.permit
fails "a permit is good once" 'E704 permit-scope' sh -c "$arm --audit-only && $X disarm --permit one.permit"
permit two
check "disarm again" $X disarm --permit two.permit

check "somebody listens from before arming" logging before.log E401 $X events --follow --since 1h
prints "provisional arming" 'provisional +falls back to audit' $arm --confirm-within 5s
wait
prints "who does is told to start again" "processes of root's that began after that, in the machine's own namespaces: start the command again" cat before.log
follow
check "nobody confirms: it falls back to audit" hear 'fell back to audit'
prints "and status says so" '^Audit only' $X status
check "unsigned loads after the fall-back" unsigned
rm -rf /sys/fs/bpf/unsigned
prints "from audit, provisionally once more" 'provisional +falls back to audit' $arm --confirm-within 5s
check "nobody confirms that: it falls back again" hear 'fell back to audit'
prints "a reload does not enforce it, either" '^Audit only' $X reload
permit three
check "disarm a third time" $X disarm --permit three.permit
check "provisional arming again" $arm --confirm-within 1h
prints "status counts down" '^Enforcing, but not confirmed' $X status
check "confirm" $X arm --confirm
prints "confirmed" '^Enforcing: ' $X status
permit four
check "disarm at last" $X disarm --permit four.permit

# What was there before arming is not denied. That it enforces without: 48_strict.
sed '1i strict = true' newer.toml >strict.toml
check "the authority signs a strict policy" bpfseal policy sign strict.toml --key authority.key
check "a program is there before arming" unsigned
prints "strict: arm does not say that it enforces" '^NOT enforcing strictly: ' $X arm --policy strict.toml --authority authority.pub
prints "nor does reload, which counts what was there" ' programs .*[1-9][0-9]* from before arming' $X reload
grep -q '^NOT enforcing strictly: ' $out && ok "nor does its first line" || failed "nor does its first line" "$(said)"
prints "nor does status" '^NOT enforcing strictly: ' $X status
rm -rf /sys/fs/bpf/unsigned
permit six
check "disarm after strict" $X disarm --permit six.permit

# The way in when nobody can sign: as if it stood on the kernel's command line.
sed 's/$/ bpfseal=audit/' /proc/cmdline >cmdline
mount --bind cmdline /proc/cmdline
prints "the boot parameter arms for audit" "^Audit only, because the kernel's command line says bpfseal=audit" $arm
prints "and status says why" "^Audit only, because the kernel's command line says bpfseal=audit: " $X status
umount /proc/cmdline
permit five
check "disarm after that" $X disarm --permit five.permit
