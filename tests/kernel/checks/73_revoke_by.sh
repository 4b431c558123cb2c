# Revoked by what a list can name beside packages: a bundle's digest, a program's, a signer's key. Each falls,
# and what no list names loads on.
# spare: 6.12 7.3
. /lab/policy.sh
bpfseal keygen --no-passphrase -o vendor >/dev/null 2>&1
sed -e 's/^\[keys.release\]/[keys.vendor]\nfile = "vendor.pub"\n&/' -e 's/of = \["release"\]/of = ["release", "vendor"]/' -i policy.toml
check "the policy is signed" bpfseal policy sign policy.toml --key authority.key
check "bundles are sealed" eval 'sealed watch_open 1.0 && sealed count_exec 1.0 && sealed trace_unlink 1.0'
vendor() {
    bpfseal pack $objects/drop_port.bpf.o -o drop_port.tar --name drop_port --version 1.0 &&
        bpfseal sign drop_port.tar --key vendor.key
}
check "one by another signer" vendor
# entry KIND VALUE: adds to what is revoked. list N: version N revokes all of that.
entry() { printf '[[revoke]]\n%s = "%s"\nreason = "INC-4713"\n' $1 $2 >>entries; }
list() {
    { printf 'version = %s\nissued = "2026-11-22T00:00:00Z"\n' $1; cat entries; } >list.toml
    bpfseal revoke list.toml --key authority.key -o list.json
}
revoked() { refused "$1 is refused" bpftool prog loadall $objects/$1.bpf.o /sys/fs/bpf/$1; }

prints "arm" '^Enforcing' $arm
for name in trace_unlink drop_port count_exec; do prints "admit $name" admitted $X admit $name.tar; done
prints "admit watch_open" admitted $X admit watch_open.tar
bundle=$(sed -n 's/.*, \(sha256:[0-9a-f]*\), .*/\1/p' $out)
prints "a program's digest is told" '"digest": "sha256:' $X admit --json count_exec.tar
program=$(sed -n 's/.*"digest": "\(sha256:[0-9a-f]*\)".*/\1/p' $out)
key=sha256:$(grep -v -e ----- vendor.pub | base64 -d | sha256sum | cut -d' ' -f1)
for name in watch_open count_exec drop_port; do check "$name loads" loads $name; done

entry bundle $bundle
check "the authority revokes a bundle" list 1
prints "by its digest" 'version 1 is in force' $X revoke list.json
revoked watch_open
fails "it is not admitted again" "E309 revoked.*$bundle" $X admit watch_open.tar
check "the next program loads still" loads count_exec

entry program $program
check "the authority revokes a program" list 2
prints "by its digest, too" 'version 2 is in force' $X revoke list.json
revoked count_exec
fails "its bundle says why" "E309 revoked.*$program" $X admit count_exec.tar
refused "and does not bring it back" bpftool prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/again
check "the next signer's loads still" loads drop_port

entry key $key
check "the authority revokes a key" list 3
prints "by the digest of that" 'version 3 is in force' $X revoke list.json
revoked drop_port
fails "what it signed is not admitted again" "E309 revoked.*$key" $X admit drop_port.tar
check "what no list names loads" loads trace_unlink
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
