# systemd's own programs: with the gate enforcing, units are restricted as before it. systemd is the
# first process of a PID namespace, which it takes for a container.
# kernels: 6.1 6.12 7.3
# files: systemd usr/lib/systemd/systemd usr/lib/systemd/systemd-executor usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-257.so
# files: libbpf1 usr/lib/x86_64-linux-gnu/libbpf.so.1
. /lab/policy.sh
. /lab/units.sh
mkdir -p /sys/fs/cgroup/managed
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >id
all="free strict silent blind"
services=$(printf '%s.service ' $all)
printf '[Unit]\nDefaultDependencies=no\nWants=%s\nAfter=%s\nSuccessAction=exit-force\n[Service]\nType=oneshot\nExecStart=/bin/true\n' \
    "$services" "$services" >$units/finish.service

# units NAME WANT...: runs them all under a systemd of their own, and compares.
units() {
    name=$1
    shift
    rm -f $all
    # It looks for a program to shut the machine down with, which is not there.
    timeout 120 sh -c 'echo $$ >/sys/fs/cgroup/managed/cgroup.procs
        exec unshare -m -u -i -p -f --mount-proc sh -c "mount --bind /run/77_shapes/id /etc/machine-id
            container=lab exec /usr/lib/systemd/systemd --system --unit=finish.service --log-target=null --show-status=no"' >$out 2>&1
    # Its last words to the console have no end of line.
    echo
    for unit in $all; do
        if [ "$(cat $unit 2>/dev/null)" = "$1" ]; then
            ok "$name: $unit" "$1"
        else
            failed "$name: $unit" "$(cat $unit 2>&1) instead of $1"
        fi
        shift
    done
}

units "without a gate" "device network sysfs end" "network sysfs end" "device sysfs end" "device network end"

# Built in are device filters alone: their programs pass for anybody.
prints "arm" '^Enforcing' $arm
# 6.1 to 6.8: the verifier speaks before the refusal takes effect.
fails "nobody's firewall loads" 'errno (1|22)$' maker type 8
refused "nor another program of nobody's" maker type 2
units "device filters are a shape" "device network sysfs end" "network sysfs end" "device network sysfs end" "device network sysfs end"

policy_for_systemd 2 >systemd.toml
check "the authority signs a policy for systemd" bpfseal policy sign systemd.toml --key authority.key
check "the daemon starts" daemon
prints "arm with it" '^Enforcing' $X arm --policy systemd.toml --authority authority.pub
check "enroll systemd's objects" bpfseal enroll $core --key release.key --name systemd -o systemd.tar
prints "admit them" 'admitted +restrict_filesystems' $X admit systemd.tar
units "systemd is a generator" "device network sysfs end" "network sysfs end" "device sysfs end" "device network end"
fails "nobody else's firewall loads" 'errno (1|22)$' maker type 8
refused "nor another program of nobody else's" maker type 2
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
