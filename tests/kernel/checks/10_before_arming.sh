# Before the gate is armed everything loads, signed or not: without this a refusal later on
# would prove nothing.
for object in allow_device count_exec drop_port refuse_ptrace tamper_exec trace_unlink watch_open; do
    check "bpftool loads $object" bpftool prog loadall $objects/$object.bpf.o /sys/fs/bpf/$object
    rm -rf /sys/fs/bpf/$object
done
prints "loader runs count_exec" 'program count_exec id [0-9]+' loader --once $objects/count_exec.bpf.o
prints "loader sets tunables" 'program enter_unlink id [0-9]+' \
    loader --once --set only_pid=7 --set report_failures=1 $objects/trace_unlink.bpf.o
runs "opensnoop" opensnoop-libbpf
runs "execsnoop" execsnoop-libbpf -x
runs "runqlat" runqlat-libbpf -m 10
runs "tcpconnect" tcpconnect-libbpf -P 80
