# Containers with the gate enforcing: crun, runc, LXC and libvirt really start one that may use a
# device and one that may not. Nobody can sign their device filters, which are made at run time: those
# of the first three have a shape, and libvirt's is known word for word.
# tool: crun crun
# modules: fuse
# tool: runc runc
# tool: lxc lxc-start
# tool: libvirt libvirtd
# tool: libvirt-clients virsh
# files: libvirt usr/lib/libvirt/libvirt_lxc
# files: libvirt usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_lxc.so
. /lab/policy.sh
here=/run/$SCRIPT
mkdir -p box/rootfs/bin box/rootfs/dev box/rootfs/proc box/rootfs/sys lxc mount root
cp /bin/busybox box/rootfs/bin/sh
device=$(tr : ' ' </sys/class/misc/cpu_dma_latency/dev)
mknod box/rootfs/device c $device
mknod box/rootfs/dev/null c 1 3
printf '#!/bin/sh\nexec >/said 2>&1\n(: </device) && echo open\n' >box/rootfs/try
chmod +x box/rootfs/try

# starts NAME ALLOW RUNTIME: a container of RUNTIME, in which a device opens or does not.
starts() {
    case $2 in
    true) want=open ;;
    false) want="can't open /device: Operation not permitted" ;;
    esac
    : >box/rootfs/said
    $3 $2 >$out 2>&1
    code=$?
    found=$(cat box/rootfs/said)
    case "$found" in
    *"$want") ok "$1" "$found" ;;
    *) failed "$1" "code $code, \"$found\": $(said 8)" ;;
    esac
}

oci() { # oci ALLOW: for crun and runc
    cat >box/config.json <<C
{ "ociVersion": "1.0.0", "root": { "path": "rootfs" },
  "process": { "cwd": "/", "user": { "uid": 0, "gid": 0 }, "args": ["/try"], "env": ["PATH=/bin"] },
  "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }, { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }],
  "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }],
    "resources": { "devices": [{ "allow": $1, "access": "rwm" }] } } }
C
}
by_crun() { oci $1 && crun --cgroup-manager=cgroupfs run --no-pivot --bundle box box; }
by_runc() { oci $1 && runc run --no-pivot --bundle box box; }

by_lxc() {
    cat >lxc.conf <<C
lxc.rootfs.path = dir:$here/box/rootfs
lxc.rootfs.mount = $here/mount
lxc.uts.name = box
lxc.net.0.type = none
lxc.autodev = 0
lxc.tty.max = 0
lxc.pty.max = 0
lxc.console.path = none
lxc.init.cmd = /try
lxc.cgroup2.devices.deny = a
lxc.cgroup2.devices.allow = c 1:3 rwm
C
    [ $1 = false ] || echo "lxc.cgroup2.devices.allow = c $(echo $device | tr ' ' :) rwm" >>lxc.conf
    rm -f lxc.log
    lxc-start -n box -P $here/lxc -f lxc.conf -F -o lxc.log -l INFO || tail -n 8 lxc.log
}

# libvirt changes the root, which cannot be done where the root is the initramfs itself.
printf 'auth_unix_rw = "none"\nunix_sock_group = "root"\n' >libvirtd.conf
[ -e /etc/group ] || printf 'root:x:0:\n' >/etc/group
[ -e /etc/passwd ] || printf 'root:x:0:0:root:/root:/bin/sh\n' >/etc/passwd
mkdir -p /dev/pts /var/log/libvirt
mount -t devpts devpts /dev/pts
[ -e /var/run ] || ln -s /run /var/run
# It asks that for the machine's name, and does without.
printf '#!/bin/sh\n' >/usr/sbin/dmidecode
chmod +x /usr/sbin/dmidecode
virsh="virsh -q -c lxc:///system"
libvirt_starts() { # as a daemon it lets go of its caller once it answers
    unshare -m sh -c "mount --rbind / root &&
        exec chroot root libvirtd -d -p $here/libvirtd.pid -f $here/libvirtd.conf" && $virsh version
}
by_libvirt() {
    # Under load it has ended by itself after a container.
    $virsh version >/dev/null 2>&1 || libvirt_starts
    cat >box.xml <<C
<domain type='lxc'><name>box</name><memory unit='MiB'>64</memory><os><type>exe</type><init>/try</init></os>
<devices><emulator>/usr/lib/libvirt/libvirt_lxc</emulator>
<filesystem type='mount'><source dir='$here/box/rootfs'/><target dir='/'/></filesystem><console type='pty'/>
$([ $1 = false ] || echo "<hostdev mode='capabilities' type='misc'><source><char>/dev/cpu_dma_latency</char></source></hostdev>")
</devices></domain>
C
    $virsh create box.xml || { tail -n 2 /var/log/libvirt/lxc/box.log; return 1; }
    # It may have ended before anybody listened: hence the short time, and the second look.
    for _ in $(seq 12); do
        $virsh domid box || return 0
        $virsh event --domain box --event lifecycle --timeout 5
    done
}

all() {
    for runtime in crun runc lxc libvirt; do
        starts "$1: $runtime, a device that is allowed" true by_$runtime
        starts "$1: $runtime, a device that is not" false by_$runtime
    done
}

# libvirt's containers see their own memory by FUSE.
grep -q -w fuse /proc/filesystems || check "FUSE is a module here" insmod /lab/modules/fuse.ko
check "libvirt starts" libvirt_starts
all "without a gate"
prints "arm" '^Enforcing' $arm
refused "nobody's program loads" maker type 2
all "armed"

# Without shapes these programs are nobody's. LXC goes on without its rules, as systemd does.
{ echo 'shape = []'; sed 's/^version = .*/version = 2/' policy.toml; } >none.toml
check "the authority signs a policy without shapes" bpfseal policy sign none.toml --key authority.key
prints "arm with it" '^Enforcing' $X arm --policy none.toml --authority authority.pub
for runtime in crun runc libvirt; do
    : >box/rootfs/said
    by_$runtime false >$out 2>&1
    code=$?
    line=$(grep -i -m 1 'operation not permitted' $out)
    name="without shapes: $runtime starts nothing"
    if [ $code -ne 0 ] && [ -n "$line" ] && [ ! -s box/rootfs/said ]; then ok "$name" "$line"; else failed "$name" "code $code: $(said 5)"; fi
done
: >box/rootfs/said
by_lxc false >$out 2>&1
prints "without shapes: lxc starts it without its rules" '^open$' cat box/rootfs/said
kill $(cat libvirtd.pid)
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
:
