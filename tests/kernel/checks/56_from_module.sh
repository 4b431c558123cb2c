# A kernel module of the attacker's that asks for a program from inside of the kernel (kern_sys_bpf): it is judged like
# one that comes from a process. What else a module can do is no gate's business: [protect] unsigned_modules.
# spare: 6.12
# modules: asks_signed asks_unsigned
. /lab/policy.sh

unsigned="insmod /lab/modules/asks_unsigned.ko"
signed="insmod /lab/modules/asks_signed.ko"
fails "before arming a module loads any program" canceled $unsigned
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
refused "afterwards it does not" $unsigned
prints "with the reason" "E401.*from_module.*(busybox|insmod)" $X events
refused "nor what nobody admitted yet" $signed
prints "it is admitted" admitted admitted keep_out
fails "and a module loads it like anybody" canceled $signed
refused "and nothing else" $unsigned
sed -i '/^mode/a\[protect]\nunsigned_modules = true' policy.toml
check "a policy closes unsigned modules" policy 2 two.toml
prints "it is taken" "^Enforcing" $X arm --policy two.toml --authority authority.pub
refused "no module of the attacker's gets into the kernel" $signed
prints "which is said as such" "E608.*unsigned_modules" $X events
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
