# Unmodified loaders under an armed gate: nothing of theirs loads before a bundle is admitted,
# everything after, with options that they write into read-only data.
# spare: 7.3
X=bpfseal-enforcer
tools="bindsnoop execsnoop opensnoop runqlat tcpconnect vfsstat"
fixtures="allow_device count_exec drop_port refuse_ptrace trace_unlink watch_open"

mkdir -p /run/loaders
cd /run/loaders
cat >policy.toml <<'P'
version = 100
mode = "enforce"
[keys.fleet]
file = "fleet.pub"
[[rule]]
name = "enrolled"
scope = "*"
signed_by = { at_least = 1, of = ["fleet"] }
tunables = { "*" = "any" }
P
for key in authority fleet; do check "key $key" bpfseal keygen --no-passphrase -o $key; done
check "the authority signs" bpfseal policy sign policy.toml --key authority.key
X="$X --state /run/loaders/state"
prints "arm" '^Enforcing' $X arm --policy policy.toml --authority authority.pub

# Nothing is admitted yet.
for tool in $tools; do refused "$tool before it is admitted" $tool-libbpf; done
# A device filter without calls and maps passes for anyone: systemd, runc and crun make such.
check "allow_device has the shape of a device filter" \
    bpftool prog loadall $objects/allow_device.bpf.o /sys/fs/bpf/shape
rm -rf /sys/fs/bpf/shape
for object in $(echo $fixtures | sed 's/allow_device//'); do
    refused "$object before it is admitted" bpftool prog loadall $objects/$object.bpf.o /sys/fs/bpf/early
done
refused "the libbpf-rs loader before admission" loader --once $objects/count_exec.bpf.o
prints "events name a reason" '"reason":"unsigned"' $X events --json

for tool in $tools; do
    check "enroll $tool" bpfseal enroll /usr/sbin/$tool-libbpf --key fleet.key --name $tool -o $tool.tar
    prints "admit $tool" 'admitted' $X admit $tool.tar
    cp $out $tool.admitted
done
check "each measurement is made of its object's functions" sh -c '! grep -h "NOT found again" *.admitted'

for object in $fixtures; do
    check "pack $object" bpfseal pack $objects/$object.bpf.o --tunable-volatile --name $object -o $object.tar
    check "sign $object" bpfseal sign $object.tar --key fleet.key
    prints "admit $object" 'admitted' $X admit $object.tar
done

# Two lines a tool: as it is, and with options that change its read-only data.
runs "opensnoop" opensnoop-libbpf
runs "opensnoop -x -p 1 -d 60" opensnoop-libbpf -x -p 1 -d 60
runs "execsnoop" execsnoop-libbpf
runs "execsnoop -x -u 0" execsnoop-libbpf -x -u 0
runs "runqlat" runqlat-libbpf
runs "runqlat -m -P 10" runqlat-libbpf -m -P 10
runs "tcpconnect" tcpconnect-libbpf
runs "tcpconnect -P 80,443 -t" tcpconnect-libbpf -P 80,443 -t
runs "vfsstat" vfsstat-libbpf
runs "bindsnoop -p 1 -P 80" bindsnoop-libbpf -p 1 -P 80

for object in $fixtures; do
    check "bpftool loads $object" bpftool prog loadall $objects/$object.bpf.o /sys/fs/bpf/$object
    rm -rf /sys/fs/bpf/$object
done
prints "the libbpf-rs loader" 'program count_exec id [0-9]+ attached' loader --once $objects/count_exec.bpf.o
prints "the libbpf-rs loader sets tunables" 'program enter_unlink id [0-9]+ attached' \
    loader --once --set only_pid=7 --set report_failures=1 $objects/trace_unlink.bpf.o
refused "the same object with one constant changed" bpftool prog loadall $objects/tamper_exec.bpf.o /sys/fs/bpf/tamper
check "a forger with an admitted object" forger variants $objects/count_exec.bpf.o
check "a forger with nothing" forger unsigned
# The other map is of another size, or it is read-only data with other contents: a map of the
# same kind and size would be input like any other.
check "a forger who swaps a map's descriptor under the kernel" forger race $objects/drop_port.bpf.o
check "a forger who swaps read-only data's descriptor" forger race $objects/trace_unlink.bpf.o
# What the tools hold is known by signer.
watched opensnoop-libbpf
check "opensnoop is attached" settled
prints "inventory names the bundle of a running tool" 'signed +opensnoop' $X inventory
kill $pid
wait $pid 2>/dev/null
:
