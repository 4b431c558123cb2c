# A signed list of probe programs: a loader's question that is newer than the enforcer loads once the
# list is there, exactly, and is attached nowhere. Older lists, changed ones and strangers' are refused.
. /lab/policy.sh
bpfseal keygen --no-passphrase -o tools >/dev/null 2>&1
with_probes() { # VERSION: a policy that names whose lists are taken
    { sed "s/^version = .*/version = $1/" policy.toml; printf '[keys.tools]\nfile = "tools.pub"\n[probes]\nsigned_by = ["tools"]\n'; } >probes-$1.toml
    bpfseal policy sign probes-$1.toml --key authority.key >/dev/null 2>&1
}
listed() { # VERSION KEY OUTPUT: a list with the question
    printf 'version = %s\nissued = "2026-11-22T08:00:00Z"\n[[probe]]\nname = "newer: raw tracepoints"\nreason = "asks"\nprogram_type = "raw_tracepoint"\nwords = %s\n' \
        $1 "$words" >list.toml
    bpfseal probes list.toml --key $2.key -o $3
}

prints "without a gate the question is attached" '^attach: ok' attacker ask
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
prints "a question that is in no list is refused" '^load: errno 1$' attacker ask
words=$($X events --json | grep '"program_type":"raw_tracepoint"' | tail -n 1 | sed -n 's/.*"words":\(\[[^]]*\]\).*/\1/p')
prints "the event has its instructions" '^\["[0-9a-f]{16}"' echo "$words"

check "the list is signed" listed 2 tools probes.json
fails "a policy that names nobody takes no list" 'E203 untrusted-signer' $X probes probes.json
with_probes 2
prints "arm with one that does" '^Enforcing' $X arm --policy probes-2.toml --authority authority.pub
prints "it is refused still" '^load: errno 1$' attacker ask
check "a list by another key" listed 2 release strangers.json
fails "a stranger's list is refused" 'E203 untrusted-signer' $X probes strangers.json
check "a list with another version" listed 9 release other.json
payload=$(sed 's/.*"payload":"\([^"]*\)".*/\1/' other.json)
sed "s|\"payload\":\"[^\"]*\"|\"payload\":\"$payload\"|" probes.json >changed.json
fails "a changed list is refused" 'E202 bad-signature' $X probes changed.json
prints "and adds nothing" '^load: errno 1$' attacker ask

prints "the list is taken" 'version 2 by "tools" is in force, 1 programs' $X probes probes.json
prints "the question loads" '^load: ok' attacker ask
grep -q '^attach: errno 1$' $out && ok "and is not attached" || failed "and is not attached" "$(said)"
prints "the event says so" 'E601 probe-attach' $X events
refused "another program of its type" maker type 17
prints "status names the list" 'probes +list version 2 by "tools" adds 1 programs' $X status
check "an older list" listed 1 tools older.json
fails "an older list is refused" 'E708 older-probes' $X probes older.json
kill -9 $daemon
wait $daemon 2>/dev/null
check "the daemon starts again" daemon
prints "the question loads after the restart" '^load: ok' attacker ask
kill -9 $daemon
wait $daemon 2>/dev/null
cp older.json state/probes.json
check "the daemon starts with an older list in its folder" daemon
prints "which adds nothing" '^load: errno 1$' attacker ask
prints "and status says why" 'NOT taken: E708' $X status
prints "the list again" 'is in force' $X probes probes.json
prints "with which it loads" '^load: ok' attacker ask
policy 3 none.toml
prints "a policy without lists" '^Enforcing' $X arm --policy none.toml --authority authority.pub
prints "takes it away" '^load: errno 1$' attacker ask
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
