# kill -9 at random moments, while commands are under way: the gate never opens, and what a
# command said is done stays done. `kills=N` on the kernel's command line says how often.
# spare: 6.1 7.3
. /lab/policy.sh
kills=$(sed -n 's/.*kills=\([0-9]*\).*/\1/p' /proc/cmdline)
kills=${kills:-8}
check "bundles are sealed" eval 'sealed count_exec 1.0 && sealed watch_open 1.0'
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
prints "admit" admitted $X admit count_exec.tar
attempt() { bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned; }

# What must hold: nothing unsigned loads, ever; watch_open loads as the last command said.
version=1 watch=no opened=0 lost=0 done=0
round=0
while [ $round -lt $kills ]; do
    round=$((round + 1))
    case $((round % 3)) in
    0) policy $((version + 1)) next.toml && command="$X arm --policy next.toml" ;;
    1) command="$X admit watch_open.tar" ;;
    2) command="$X withdraw watch_open" ;;
    esac
    $command >command.out 2>&1 &
    commanded=$!
    usleep $(($(od -An -N2 -tu2 /dev/urandom) * 30))
    kill -9 $daemon
    attempt >/dev/null 2>&1 && opened=$((opened + 1))
    # A command that finds no daemon does the work itself; its word counts as well.
    if wait $commanded; then
        done=$((done + 1))
        case $((round % 3)) in
        0) version=$((version + 1)) ;;
        1) watch=yes ;;
        2) watch=no ;;
        esac
    else
        # It may have got there before the kill: then the next round's check does not apply.
        case $((round % 3)) in
        0) grep -q 'version' command.out && version=$version ;;
        *) watch=unknown ;;
        esac
    fi
    wait $daemon 2>/dev/null
    attempt >/dev/null 2>&1 && opened=$((opened + 1))
    daemon || { failed "the daemon starts after kill $round" "$(tail -n 2 daemon.log)"; break; }
    attempt >/dev/null 2>&1 && opened=$((opened + 1))
    loads count_exec >/dev/null 2>&1 || lost=$((lost + 1))
    if loads watch_open >/dev/null 2>&1; then got=yes; else got=no; fi
    [ $watch = unknown ] && watch=$got
    [ $watch = $got ] || lost=$((lost + 1))
    now=$($X status --json | sed -n 's/^ *"version": \([0-9]*\),$/\1/p' | head -n 1)
    [ "${now:-0}" -ge $version ] || lost=$((lost + 1))
    version=${now:-$version}
done
check "the gate never opened" test $opened = 0
check "nothing was lost" test $lost = 0
ok "kills" "$round kills, $done commands had ended before"
prints "it enforces as before" '^Enforcing' $X status
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
