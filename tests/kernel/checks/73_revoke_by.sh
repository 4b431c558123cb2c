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
# falls KIND VALUE VERSION NAME: revoked by that, it loads no more, and admitting it again says why.
falls() {
    entry $1 $2
    check "the authority revokes a $1" list $3
    prints "by its digest, version $3" "version $3 is in force" $X revoke list.json
    refused "$4 is refused" bpftool prog loadall $objects/$4.bpf.o /sys/fs/bpf/$4
    fails "$4 is not admitted again" "E309 revoked.*$2" $X admit $4.tar
}

prints "arm" '^Enforcing' $arm
for name in trace_unlink drop_port count_exec; do prints "admit $name" admitted $X admit $name.tar; done
prints "admit watch_open" admitted $X admit watch_open.tar
bundle=$(sed -n 's/.*, \(sha256:[0-9a-f]*\), .*/\1/p' $out)
prints "a program's digest is told" '"digest": "sha256:' $X admit --json count_exec.tar
program=$(sed -n 's/.*"digest": "\(sha256:[0-9a-f]*\)".*/\1/p' $out)
key=sha256:$(grep -v -e ----- vendor.pub | base64 -d | sha256sum | cut -d' ' -f1)
for name in watch_open count_exec drop_port; do check "$name loads" loads $name; done

falls bundle $bundle 1 watch_open
check "the next program loads still" loads count_exec
falls program $program 2 count_exec
refused "which does not bring it back" bpftool prog loadall $objects/count_exec.bpf.o /sys/fs/bpf/again
check "the next signer's loads still" loads drop_port
falls key $key 3 drop_port
check "what no list names loads" loads trace_unlink
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
