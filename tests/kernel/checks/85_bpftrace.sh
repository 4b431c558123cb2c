# bpftrace makes its programs as it goes, so no bundle holds them: under the gate that the
# script before this one armed they are refused, but for a while by a permit. One kernel is enough, and 200 MB of
# libraries.
# kernels: 6.12
# tool: bpftrace bpftrace
X="bpfseal-enforcer --state /run/loaders/state --runtime /run/$SCRIPT"
cd /run/loaders
try='tracepoint:syscalls:sys_enter_openat { @[comm] = count(); } interval:ms:100 { exit(); }'
fails "bpftrace" 'Loading BPF object\(s\) failed' bpftrace -e "$try"
prints "the event names it" '"comm":"bpftrace"' $X events --json

{
    sed 's/^version = .*/version = 101/' policy.toml
    cat <<P
[[generator]]
name = "bpftrace"
$(pinned $(command -v bpftrace))
program_types = ["tracepoint", "perf_event", "kprobe", "raw_tracepoint"]
permit = true
P
} >traced.toml
host=$($X status --json | sed -n 's/^ *"host": "\(.*\)".*/\1/p')
check "a policy with bpftrace" bpfseal policy sign traced.toml --key authority.key
check "the daemon starts" logging daemon.log 'listening on' $X run --watch-every 5s
daemon=$started
prints "it is armed with that" '^Enforcing' $X arm --policy traced.toml --authority authority.pub
fails "not without a permit" 'Loading BPF object\(s\) failed' bpftrace -e "$try"
check "a permit" sh -c "bpfseal permit --action generator --generator bpftrace --host '$host' --for 60s --reason INC-1 --key authority.key >its.permit"
# On a busy machine the minute may be over before bpftrace is.
follow
prints "enable" 'may load programs until' $X enable bpftrace --permit its.permit
prints "with a permit bpftrace works" '@\[.*\]: [0-9]' bpftrace -e "$try"
while cat /proc/version; do :; done >/dev/null &
reader=$!
prints "a kprobe too" '^read by' bpftrace -e 'kprobe:vfs_read { printf("read by %s\n", comm); exit(); }'
kill $reader
prints "what it does at the beginning" '^begun' bpftrace -e 'BEGIN { printf("begun\n"); exit(); }'
check "the log says when it is over" hear 'bpftrace is not let in'
fails "after its end it does not" 'Loading BPF object\(s\) failed' bpftrace -e "$try"
kill -TERM $daemon
wait $daemon 2>/dev/null
