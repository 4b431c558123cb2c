# systemd's and crun's own programs: with the gate enforcing, units and containers are restricted
# as before it. systemd is the first process of a PID namespace, which it takes for a container.
# kernels: 6.12
# files: systemd usr/lib/systemd/systemd usr/lib/systemd/systemd-executor usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-257.so
# files: libbpf1 usr/lib/x86_64-linux-gnu/libbpf.so.1
# tool: crun crun
. /lab/policy.sh
manager=/usr/lib/systemd/systemd
core=/usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-257.so
units=/run/systemd/system
mkdir -p $units box/rootfs/bin /sys/fs/cgroup/managed
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >id

# What a unit may do, as it finds out: one word each.
cat >try <<'T'
#!/bin/sh
exec 2>/dev/null >/run/77_shapes/$1
(: </dev/zero) && echo -n "device "
ping -c 1 -W 1 127.0.0.1 >/dev/null && echo -n "network "
(: </sys/kernel/notes) && echo -n "sysfs "
echo end
T
chmod +x try
unit() { # unit NAME LINES...
    name=$1
    shift
    {
        printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/run/77_shapes/try %s\n' $name
        printf '%s\n' "$@"
    } >$units/$name.service
}
all="free strict silent blind"
unit free
unit strict DevicePolicy=strict 'DeviceAllow=/dev/null rw'
unit silent IPAddressDeny=any
unit blind RestrictFileSystems=~sysfs
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

# A container that may use all devices, or those alone that every container may.
device=$(tr : ' ' </sys/class/misc/cpu_dma_latency/dev)
container() { # container ALLOW
    cat >box/config.json <<C
{ "ociVersion": "1.0.0", "root": { "path": "rootfs" }, "process": { "cwd": "/", "user": { "uid": 0, "gid": 0 },
  "args": ["/bin/sh", "-c", "mknod /device c $device; (: </device) && echo open; rm -f /device"], "env": ["PATH=/bin"],
  "capabilities": { "bounding": ["CAP_MKNOD"], "effective": ["CAP_MKNOD"], "permitted": ["CAP_MKNOD"] } },
  "mounts": [{ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }],
  "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }],
    "resources": { "devices": [{ "allow": $1, "access": "rwm" }] } } }
C
    crun --cgroup-manager=cgroupfs run --no-pivot --bundle box box
}
cp /bin/busybox box/rootfs/bin/sh
for applet in mknod rm; do ln -s sh box/rootfs/bin/$applet; done
containers() {
    prints "$1: a container with all devices" '^open$' container true
    prints "$1: a container without" "can't open /device: Operation not permitted" container false
}

units "without a gate" "device network sysfs end" "network sysfs end" "device sysfs end" "device network end"
containers "without a gate"

# Built in are device filters alone: their programs pass for anybody.
prints "arm" '^Enforcing' $arm
refused "nobody's firewall loads" maker type 8
units "device filters are a shape" "device network sysfs end" "network sysfs end" "device network sysfs end" "device network sysfs end"
containers "armed"

# systemd makes its firewalls as it goes: it is a generator. Its other programs are objects in a
# library, which can be signed.
ldd_of() {
    /usr/lib64/ld-linux-x86-64.so.2 --list $1 | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p'
}
{
    sed 's/^version = .*/version = 2/; /^scope/a map_sizes = { cgroup_hash = { max_entries = { min = 1, max = 65536 } } }\ntunables = { "*" = "any" }' policy.toml
    printf '[[generator]]\nname = "systemd"\nexe = { path = "%s", sha256 = "%s" }\nlibraries = [\n' $manager $(sha256sum $manager | cut -d' ' -f1)
    for library in $({ ldd_of $manager; ldd_of /usr/lib/x86_64-linux-gnu/libbpf.so.1; echo /usr/lib/x86_64-linux-gnu/libbpf.so.1; } | sort -u); do
        printf '{ path = "%s", sha256 = "%s" },\n' $library $(sha256sum $library | cut -d' ' -f1)
    done
    printf ']\nprogram_types = ["cgroup_skb"]\nmap_types = ["lpm_trie", "array"]\nuid = 0\n'
} >systemd.toml
check "the authority signs a policy for systemd" bpfseal policy sign systemd.toml --key authority.key
check "the daemon starts" daemon
prints "arm with it" '^Enforcing' $X arm --policy systemd.toml --authority authority.pub
check "enroll systemd's objects" bpfseal enroll $core --key release.key --name systemd -o systemd.tar
prints "admit them" 'admitted +restrict_filesystems' $X admit systemd.tar
units "systemd is a generator" "device network sysfs end" "network sysfs end" "device sysfs end" "device network end"
refused "nobody else's firewall loads" maker type 8
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
:
