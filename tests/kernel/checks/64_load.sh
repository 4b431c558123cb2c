# kernels: 7.2 7.3
# Loaders that the kernel checks itself: first without a gate, where everything that refuses is the
# kernel, then through the gate.
. /lab/policy.sh
made() {
    bpfseal pack $objects/count_exec.bpf.o $objects/drop_port.bpf.o $objects/congest.bpf.o \
        -o loaders.tar --name loaders --version 1.0 \
        --kernel-loader --kernel-key /lab/signer.key --kernel-certificate /lab/signer.pem &&
        bpfseal sign loaders.tar --key release.key
}
check "a bundle with kernel loaders is packed" made
prints "what has no loader says why" 'no loader congest.bpf.o: .*struct-ops' bpfseal inspect loaders.tar
ring=$(attacker keyring /lab/signer.pem)
attacker signed loaders.tar $ring /lab/signer.pem || failed "attacker signed" "ended with $?"
# A gate that asks by which keyring the kernel has verified.
attacker native loaders.tar $ring /lab/signer.key /lab/signer.pem \
    $objects/count_exec.bpf.o $objects/drop_port.bpf.o || failed "attacker native" "ended with $?"

fails "without a gate nothing is loaded" 'not armed' $X load loaders.tar --keyring $ring
prints "arm" '^Enforcing' $arm
fails "a rule that does not name syscall lets no loader pass" 'Operation not permitted' \
    $X load loaders.tar --keyring $ring
sed -i 's/^version = .*/version = 2/; /^scope/a program_types = ["tracepoint", "xdp", "struct_ops", "syscall"]' policy.toml
bpfseal policy sign policy.toml --key authority.key >/dev/null 2>&1
prints "arm with a rule that does" '^Enforcing' $arm
prints "the bundle is loaded by its loaders" 'signature checked by the kernel' \
    $X load loaders.tar --keyring $ring --pin /sys/fs/bpf/loaders
prints "its programs are pinned" 'count_exec|count' ls /sys/fs/bpf/loaders
check "a pin is a program" sh -c 'bpftool prog show pinned $(ls -d /sys/fs/bpf/loaders/* | grep -v maps | head -n 1)'
check "a pin of a map is one" sh -c 'bpftool map show pinned $(ls -d /sys/fs/bpf/loaders/maps/* | head -n 1)'
fails "pins that are there are not replaced" 'exists' \
    $X load loaders.tar --keyring $ring --pin /sys/fs/bpf/loaders
rm -rf /sys/fs/bpf/loaders
fails "a keyring of the system does not have the certificate" 'E707 kernel-signature.*not in the keyring' \
    $X load loaders.tar
prints "what has no loader is named" 'NOT loaded +congest.bpf.o: .*struct-ops' \
    $X load loaders.tar --keyring $ring
unsigned() {
    bpfseal pack $objects/count_exec.bpf.o -o unsigned.tar --name unsigned --version 1.0 --kernel-loader &&
        bpfseal sign unsigned.tar --key release.key
}
check "loaders without a kernel's signature are packed" unsigned
fails "a loader that nobody signed for the kernel is refused" 'E707 kernel-signature.*is not signed' \
    $X load unsigned.tar --keyring $ring
prints "the gate alone may decide, where that is spelled out" 'not checked by the kernel' \
    $X load unsigned.tar --without-kernel-signature
sealed count_exec 1.0
fails "a bundle without loaders says so" 'no loader that kernels check' $X load count_exec.tar
sed -i 's/^version = .*/version = 3/; s/, "syscall"//' policy.toml
printf '[kernel_keyring.machine]\nkeyring = "secondary"\n' >>policy.toml
bpfseal policy sign policy.toml --key authority.key >/dev/null 2>&1
prints "arm with a keyring of the system" '^Enforcing' $arm
prints "status names the keyring" 'verifies by: secondary' $X status
fails "another keyring is not that one" 'Operation not permitted' $X load loaders.tar --keyring $ring
prints "and the event says so" 'E420|kernel-keyring' $X events
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
