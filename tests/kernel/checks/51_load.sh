# The gate under load: racing threads, a full table of records. Then once more while the kernel
# lets itself be interrupted anywhere.
attacker race 40
attacker renew
attacker fill
attacker cycle 6
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
preempt=/sys/kernel/debug/sched/preempt
mode=$(sed -n 's/.*(\([a-z]*\)).*/\1/p' $preempt 2>/dev/null)
[ -n "$mode" ] || failed "the preemption mode is known" "$(cat $preempt 2>&1)"
echo full >$preempt
attacker race 20
attacker renew
attacker swap 12
attacker churn 20
attacker stale 200
attacker begun
echo "$mode" >$preempt
