# Who commands the armed gate of 70_daemon: not root alone. An edited policy, an older one,
# audit and disarming need the authority.
X=bpfseal-enforcer
cd /run/daemon
PATH=/run/daemon:$PATH

echo '# edited' >>/var/lib/bpfseal/policy.toml
fails "an edited policy is not loaded" 'E701 bad-authority' $X reload
prints "status says so" 'NOT taken: E701' $X status
refused "refused with an edited policy" unsigned
check "signed loads with an edited policy" signed
fails "an older policy is not loaded" 'E702 older-policy' $X arm --policy older.toml
prints "the newer one is loaded" 'policy +version 3' $X arm --policy newer.toml
check "signed loads under the newer policy" signed
fails "audit after enforce needs a permit" 'E703 needs-permit' $X arm --policy newer.toml --audit-only
fails "disarm needs a permit" 'E703 needs-permit' $X disarm
bpfseal permit --action disarm --host elsewhere --for 1h --reason test --key authority.key >foreign.permit
fails "another host's permit does not fit" 'E704 permit-scope' $X disarm --permit foreign.permit
check "withdraw" $X withdraw count
refused "withdrawn is refused" signed
check "the authority gives a permit" sh -c 'bpfseal permit --action disarm --host guest-1234 --for 1h --reason test --key authority.key >disarm.permit'
prints "disarm with a permit" 'Disarmed' $X disarm --permit disarm.permit
check "unsigned loads again" unsigned
rm -rf /sys/fs/bpf/unsigned
kill -TERM $(pidof $X) 2>/dev/null
:
