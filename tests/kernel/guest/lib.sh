# What guest scripts share. SCRIPT is the script's name; every check prints one line
# `CHECK ok|fail|skip SCRIPT NAME: DETAIL`, which the machine outside reads.

objects=/lab/objects
out=/run/$SCRIPT.out

ok() { echo "CHECK ok $SCRIPT $1${2:+: $2}"; }
failed() { echo "CHECK fail $SCRIPT $1: ${2:-}"; }
skip() { echo "CHECK skip $SCRIPT $1: $2"; }

# One line of what a command said, for details.
said() { tail -n "${1:-3}" "$out" | tr '\n\r\t' '   ' | cut -c 1-400; }

# check NAME COMMAND...: it must end with 0.
check() {
    name=$1
    shift
    if "$@" >"$out" 2>&1; then ok "$name"; else failed "$name" "code $?: $(said)"; fi
}

# prints NAME PATTERN COMMAND...: it must end with 0 and print a match.
prints() {
    name=$1 pattern=$2
    shift 2
    "$@" >"$out" 2>&1
    code=$?
    line=$(grep -m 1 -E -e "$pattern" "$out")
    if [ $code -eq 0 ] && [ -n "$line" ]; then ok "$name" "$line"; else failed "$name" "code $code: $(said)"; fi
}

# refused NAME COMMAND...: it must fail, and say EPERM in one of the usual ways.
refused() {
    name=$1
    shift
    timeout 120 "$@" >"$out" 2>&1
    code=$?
    line=$(grep -m 1 -E 'Operation not permitted|EPERM|os error 1\)|error -1\b|errno 1\b|: -1$' "$out")
    if [ $code -ne 0 ] && [ -n "$line" ]; then ok "$name" "$line"; else failed "$name" "code $code: $(said)"; fi
}

# fails NAME PATTERN COMMAND...: it must fail and print a match.
fails() {
    name=$1 pattern=$2
    shift 2
    timeout 120 "$@" >"$out" 2>&1
    code=$?
    line=$(grep -m 1 -E -e "$pattern" "$out")
    if [ $code -ne 0 ] && [ -n "$line" ]; then ok "$name" "$line"; else failed "$name" "code $code: $(said)"; fi
}

# runs NAME COMMAND...: a tool that loads, attaches and then runs until told to stop. It is
# well when it holds programs and links (or perf events), and ends only then and without complaint.
runs() {
    name=$1
    shift
    watched "$@"
    if ! settled; then
        if [ $ended ]; then
            wait $pid
            failed "$name" "ended with code $?: $(said)"
        else
            failed "$name" "not attached after $heard calls: $(said)"
            kill -KILL $pid
            wait $pid
        fi
        return
    fi
    held="programs $(grep -hs prog_id: /proc/$pid/fdinfo/* | awk '{ print $2 }' | sort -nu | tr '\n' ' ')"
    kill -TERM $pid
    wait $pid
    code=$?
    # By itself, or by the signal where it does not handle it.
    if [ $code -eq 0 ] || [ $code -eq 143 ]; then ok "$name" "$held"; else failed "$name" "code $code: $(said)"; fi
}

# watched COMMAND...: starts it, and has the kernel say when it begins to wait, writes something (sid's
# opensnoop sees itself and never waits) or ends; $pid is its process. settled: waits until it has
# programs and links (or perf events).
watched() {
    trace=/sys/kernel/tracing/instances/$SCRIPT
    mkdir $trace
    # Of nobody but the first process, until the command says which it is: never of all.
    echo 1 >$trace/set_event_pid
    echo 1 >$trace/options/event-fork
    echo 1 >$trace/events/sched/sched_process_exit/enable
    for call in epoll_wait epoll_pwait poll ppoll select pselect6 nanosleep clock_nanosleep pause write; do
        echo 1 >$trace/events/syscalls/sys_enter_$call/enable
    done
    rm -f /run/$SCRIPT.trace
    mkfifo /run/$SCRIPT.trace
    # Not cat, which splices: then nobody can read what is there while it waits for more.
    dd if=$trace/trace_pipe of=/run/$SCRIPT.trace bs=4096 2>/dev/null &
    tracer=$!
    exec 6</run/$SCRIPT.trace
    sh -c 'echo $$ >>$0/set_event_pid; exec "$@"' $trace "$@" >"$out" 2>&1 &
    pid=$!
}
settled() {
    ended= heard=0
    until holds $pid 'prog_(id|tag):' && attached $pid; do
        [ $heard -lt 1000 ] && read -r -t 60 line <&6 || break
        heard=$((heard + 1))
        case $line in *sched_process_exit*" pid=$pid "*) ended=yes && break ;; esac
    done
    exec 6<&-
    kill $tracer
    wait $tracer
    rmdir $trace
    holds $pid 'prog_(id|tag):' && attached $pid
}

holds() { cat /proc/"$1"/fdinfo/* 2>/dev/null | grep -q -E "$2"; }
attached() { holds "$1" 'link_type:' || ls -l /proc/"$1"/fd 2>/dev/null | grep -q perf_event; }

# logging FILE LINE COMMAND...: starts it, adds to FILE what it says, and waits for a line with LINE; $started
# is its process.
logging() {
    log=$1 wanted=$2
    shift 2
    rm -f /run/$SCRIPT.log /run/$SCRIPT.up
    mkfifo /run/$SCRIPT.log /run/$SCRIPT.up
    "$@" >/run/$SCRIPT.log 2>&1 &
    started=$!
    {
        up=
        while read -r line; do
            echo "$line" >>$log
            case $line in *"$wanted"*) [ $up ] || echo up >/run/$SCRIPT.up; up=1 ;; esac
        done
        [ $up ] || echo ended >/run/$SCRIPT.up
    } </run/$SCRIPT.log &
    answer=
    read -r -t 60 answer </run/$SCRIPT.up
    [ "$answer" = up ]
}

# follow: begins to listen to what is logged from now on. hear TEXT: waits for a line with it.
follow() {
    rm -f /run/$SCRIPT.events
    mkfifo /run/$SCRIPT.events
    $X events --follow --since 1s >/run/$SCRIPT.events &
    exec 7</run/$SCRIPT.events
}
hear() {
    while read -r -t 120 line <&7; do
        case "$line" in *"$1"*) return 0 ;; esac
    done
    return 1
}

# holding COMMAND...: starts what stays until its input ends, and waits for its first line; $held is
# its process.
holding() {
    rm -f /run/$SCRIPT.in /run/$SCRIPT.said
    mkfifo /run/$SCRIPT.in /run/$SCRIPT.said
    "$@" </run/$SCRIPT.in >/run/$SCRIPT.said &
    held=$!
    exec 8>/run/$SCRIPT.in
    read -r -t 60 line </run/$SCRIPT.said
}

# released: ends it, also where somebody who was started since has its input open.
released() {
    exec 8>&-
    kill $held 2>/dev/null
    wait $held
}

# awaits COMMAND...: tries it until it ends with 0, each time after a grace period of the kernel's RCU:
# what the kernel lets go of, it lets go of after such a period.
awaits() {
    tried=0
    until "$@"; do
        tried=$((tried + 1))
        [ $tried -lt 500 ] && attacker grace || return 1
    done
}

# programs NAME: how many programs of that name are in the kernel.
programs() { bpftool prog show name "$1" 2>/dev/null | grep -c "^[0-9]"; }

# ldd_of PROGRAM: every file that a run of it maps as code.
ldd_of() {
    LD_TRACE_LOADED_OBJECTS=1 $1 | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u
}

# pinned PROGRAM: `exe` and `libraries` of a [[generator]], by their contents.
pinned() {
    printf 'exe = { path = "%s", sha256 = "%s" }\nlibraries = [\n' $1 $(sha256sum $1 | cut -d' ' -f1)
    for library in $(ldd_of $1); do
        printf '{ path = "%s", sha256 = "%s" },\n' $library $(sha256sum $library | cut -d' ' -f1)
    done
    echo ']'
}
