# The daemon and its commands on a real kernel: arm, refuse, admit, survive. The gate stays
# armed for 71_command.
X=bpfseal-enforcer
daemon() {
    logging /run/daemon.log 'listening on' $X run --watch-every 5s
    answered=$?
    daemon=$started
    return $answered
}

mkdir -p /run/daemon
cd /run/daemon
PATH=/run/daemon:$PATH
# A load that nobody signed, and one that is signed and admitted later on.
cat >unsigned <<P
bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned
P
cat >signed <<P
bpftool prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/signed && rm -rf /sys/fs/bpf/signed
P
sed -i '1i#!/bin/sh' unsigned signed
chmod +x unsigned signed
printf 'guest-1234\n' >/etc/machine-id

check "authority's key" bpfseal keygen --no-passphrase -o authority
check "publisher's key" bpfseal keygen --no-passphrase -o release
cat >policy.toml <<'P'
version = 2
mode = "enforce"
[keys.release]
file = "release.pub"
[[rule]]
name = "our tools"
scope = "*"
signed_by = { at_least = 1, of = ["release"] }
P
sed 's/version = 2/version = 1/' policy.toml >older.toml
sed 's/version = 2/version = 3/' policy.toml >newer.toml
for policy in policy older newer; do
    check "the authority signs $policy.toml" bpfseal policy sign $policy.toml --key authority.key
done
check "pack" bpfseal pack $objects/count_exec.bpf.o -o count.tar --name count --version 1.0
cp count.tar unsigned.tar
check "sign" bpfseal sign count.tar --key release.key

prints "not armed is said" 'NOT enforcing: the gate is not armed' $X status
check "unsigned loads before arming" unsigned
rm -rf /sys/fs/bpf/unsigned
fails "an unsigned policy does not arm" 'E701 bad-authority' $X arm --policy /lab/release --authority authority.pub
check "the daemon starts" daemon
prints "arm" 'Enforcing: an unsigned program was refused' $X arm --policy policy.toml --authority authority.pub
prints "status" '^Enforcing' $X status
refused "unsigned is refused" unsigned
prints "selftest" 'passed: systemd' $X selftest
prints "the event says who" '"reason":"unsigned".*"comm":"bpftool"' $X events --json
prints "the event says what to do" 'bpfseal-enforcer admit' $X events
refused "signed, but not admitted yet, is refused" signed
fails "a bundle without signature is not admitted" 'E201|no-signature' $X admit unsigned.tar
prints "admit" 'admitted +count_exec' $X admit count.tar
check "signed loads with unmodified bpftool" signed
bpftool prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/signed
prints "inventory" 'signed +count .*release' $X inventory
rm -rf /sys/fs/bpf/signed

prints "its memory is written to no swap device" 'VmLck:[[:space:]]*[1-9]' cat /proc/$daemon/status
kill -9 $daemon 2>/dev/null
wait $daemon 2>/dev/null
refused "refused after kill -9" unsigned
check "signed loads after kill -9" signed
check "the daemon starts again" daemon
refused "refused after the restart" unsigned
check "signed loads after the restart" signed
prints "status after the restart" '^Enforcing' $X status
kill -TERM $daemon 2>/dev/null
wait $daemon 2>/dev/null
refused "refused after SIGTERM" unsigned
check "signed loads after SIGTERM" signed
prints "commands work without a daemon" '^Enforcing' $X status
:
