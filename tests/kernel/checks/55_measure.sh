# Objects measured on this kernel, loaded by programs that know nothing of us.
tools="opensnoop-libbpf execsnoop-libbpf runqlat-libbpf tcpconnect-libbpf vfsstat-libbpf"
files=
for object in count_exec drop_port nested refuse_ptrace trace_unlink watch_open; do
    files="$files $objects/$object.bpf.o"
done
for tool in $tools; do files="$files $(which $tool)"; done
attacker admit $files
[ -d /sys/fs/bpf/bpfseal ] || exit 1
attacker watch >/dev/null
for object in count_exec drop_port nested refuse_ptrace trace_unlink watch_open; do
    check "bpftool loads $object" bpftool prog loadall $objects/$object.bpf.o /sys/fs/bpf/$object
    rm -rf /sys/fs/bpf/$object
done
refused "bpftool loads tamper_exec" bpftool prog loadall $objects/tamper_exec.bpf.o /sys/fs/bpf/tamper
refused "bpftool loads nested with larger maps in its map" bpftool prog loadall $objects/tamper_nested.bpf.o /sys/fs/bpf/tamper
prints "loader runs count_exec" 'program count_exec id [0-9]+' loader --once $objects/count_exec.bpf.o
prints "loader sets tunables" 'program enter_unlink id [0-9]+' \
    loader --once --set only_pid=7 --set report_failures=1 $objects/trace_unlink.bpf.o
attacker watch
runs "opensnoop" opensnoop-libbpf
runs "opensnoop with options" opensnoop-libbpf -x -p 1
runs "execsnoop" execsnoop-libbpf -x
runs "runqlat" runqlat-libbpf -m 10
runs "tcpconnect" tcpconnect-libbpf -P 80
runs "vfsstat" vfsstat-libbpf
attacker watch
attacker disarm
