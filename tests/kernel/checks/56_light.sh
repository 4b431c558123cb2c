# kernels: 7.2 7.3
# Programs that other programs load: light skeletons, where the kernel tells what it made of them,
# and a signed loader that loads anything.
names="count_exec trace_unlink watch_open refuse_ptrace drop_port"
files=$objects/universal_loader.bpf.o
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
fails "bpftool loads the light skeleton of tamper_exec" "err -1 failed to execute" \
    bpftool -L prog load $objects/tamper_exec.bpf.o
attacker light /run/trace_unlink.lskel.h $objects/universal_loader.bpf.o
attacker watch
attacker disarm
