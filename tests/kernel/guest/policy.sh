# An authority, a publisher and a policy in a folder of the script's own, for scripts that arm
# the gate by the command line. `armed N` signs version N of the policy and arms.

X="bpfseal-enforcer --state /run/$SCRIPT/state --runtime /run/$SCRIPT/run"
mkdir -p /run/$SCRIPT
cd /run/$SCRIPT
printf 'guest-1234\n' >/etc/machine-id
bpfseal keygen --no-passphrase -o authority >/dev/null 2>&1
bpfseal keygen --no-passphrase -o release >/dev/null 2>&1
cat >policy.toml <<'P'
version = 1
mode = "enforce"
[keys.release]
file = "release.pub"
[[rule]]
name = "our tools"
scope = "*"
signed_by = { at_least = 1, of = ["release"] }
P
bpfseal policy sign policy.toml --key authority.key >/dev/null 2>&1
arm="$X arm --policy policy.toml --authority authority.pub"

# policy N FILE: the same policy with version N.
policy() {
    sed "s/^version = .*/version = $1/" policy.toml >$2 && bpfseal policy sign $2 --key authority.key >/dev/null 2>&1
}

# sealed NAME VERSION: a signed bundle NAME.tar of the fixture of that name.
sealed() {
    bpfseal pack $objects/$1.bpf.o -o $1.tar --name $1 --version $2 >/dev/null 2>&1 &&
        bpfseal sign $1.tar --key release.key >/dev/null 2>&1
}

# admitted NAME [FILE]: packs and signs the fixture of that name, or a file, and admits it.
admitted() {
    bpfseal pack ${2:-$objects/$1.bpf.o} --tunable-volatile --name $1 -o $1.tar &&
        bpfseal sign $1.tar --key release.key && $X admit $1.tar
}

# permitted ACTION: a permit in ACTION.permit, another one each time.
permitted() {
    bpfseal permit --action $1 --host guest-1234 --for 1h --reason test --key authority.key >$1.permit 2>/dev/null
}

# loads NAME: bpftool loads the fixture of that name, and unloads it again.
loads() {
    bpftool prog loadall $objects/$1.bpf.o /sys/fs/bpf/$1 && rm -rf /sys/fs/bpf/$1
}

# daemon [EVERY]: starts it, to look around so often, and waits until it listens; $daemon is its process.
daemon() {
    logging daemon.log 'listening on' $X run --watch-every ${1:-5s}
    answered=$?
    daemon=$started
    return $answered
}
