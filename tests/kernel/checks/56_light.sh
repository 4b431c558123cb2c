# kernels: 7.2 7.3
# Programs that other programs load: light skeletons, where the kernel tells what it made of them.
names="count_exec trace_unlink watch_open refuse_ptrace drop_port"
files=
for object in $names; do
    bpftool gen skeleton -L $objects/$object.bpf.o >/run/$object.lskel.h
    files="$files $objects/$object.bpf.o /run/$object.lskel.h"
done
bpftool gen skeleton -L $objects/tamper_exec.bpf.o >/run/tamper_exec.lskel.h
check "before arming an unsigned light skeleton loads" bpftool -L prog load $objects/tamper_exec.bpf.o
attacker admit $files
[ -d /sys/fs/bpf/bpfseal ] || exit 1
attacker watch >/dev/null
for object in $names; do
    check "bpftool loads the light skeleton of $object" bpftool -L prog load $objects/$object.bpf.o
done
attacker watch
fails "bpftool loads the light skeleton of tamper_exec" "failed to execute loader" \
    bpftool -L prog load $objects/tamper_exec.bpf.o
attacker light /run/trace_unlink.lskel.h
attacker watch
attacker disarm

# The same from a signed bundle: the loader is a syscall program, which the policy has to name.
. /lab/policy.sh
cp /run/count_exec.lskel.h .
bundle() {
    bpfseal pack $objects/count_exec.bpf.o count_exec.lskel.h -o light.tar --name light --version 1.0 &&
        bpfseal sign light.tar --key release.key
}
check "a bundle with a light skeleton is packed" bundle
prints "its loader is in the inventory" 'syscall' bpfseal inspect light.tar
prints "arm" '^Enforcing' $arm
fails "a rule that does not name syscall does not admit it" E303 $X admit light.tar
sed -i 's/^version = .*/version = 2/; /^scope/a program_types = ["tracepoint", "syscall"]' policy.toml
bpfseal policy sign policy.toml --key authority.key >/dev/null 2>&1
prints "arm with a rule that does" '^Enforcing' $arm
fails "nothing loads before" 'failed to load loader' bpftool -L prog load $objects/count_exec.bpf.o
prints "the loader is admitted" 'admitted +__loader.prog' $X admit light.tar
check "bpftool loads the light skeleton" bpftool -L prog load $objects/count_exec.bpf.o
fails "and no other one" 'failed to load loader' bpftool -L prog load $objects/drop_port.bpf.o
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
