# The gate under load: racing threads, a full table of records, sets that come and go. Then the cheaper races in
# each way in which the kernel lets itself be interrupted, and all of them where that is anywhere.
# spare: 6.12
# processors: 2 6.1 6.12
attacker race 40
attacker swarm 64
attacker renew
attacker fill
attacker cycle 6
attacker sets 25
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
preempt=/sys/kernel/debug/sched/preempt
mode=$(sed -n 's/.*(\([a-z]*\)).*/\1/p' $preempt 2>/dev/null)
[ -n "$mode" ] || failed "the preemption mode is known" "$(cat $preempt 2>&1)"
for other in $(tr -d '()' <$preempt); do
    echo $other >$preempt
    export SCRIPT="51_load $other"
    if [ $other = full ]; then
        attacker race 20
        attacker renew
        attacker swap 8
        attacker churn 10
        attacker stale 100
        attacker rewrite 16
        attacker begun
    else
        attacker swap 4
        attacker stale 40
        attacker rewrite 12
    fi
done
echo "$mode" >$preempt
