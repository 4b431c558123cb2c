# bpftrace makes its programs as it goes, so no bundle holds them: under the gate that the
# script before this one armed they are refused. One kernel is enough, and 200 MB of libraries.
# kernels: 6.12
# tool: bpftrace bpftrace
fails "bpftrace" 'Loading BPF object\(s\) failed' bpftrace -e 'tracepoint:syscalls:sys_enter_openat { exit(); }'
prints "the event names it" '"comm":"bpftrace"' bpfseal-enforcer --state /run/loaders/state events --json
