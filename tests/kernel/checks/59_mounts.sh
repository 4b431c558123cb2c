# The mounts that show the pins: whoever takes one of them away takes the gate away with it. Each
# attack first takes a pinned program away that nobody guards, then fails on the gate.
pinned=/sys/fs/bpf/victim
mkdir -p /run/other
restore() { # what guest/init mounts, where an attack took it away
    mount --make-rprivate /
    while umount -l /run/aside 2>/dev/null; do :; done
    while umount -l /run/other 2>/dev/null; do :; done
    ! grep -q '/sys/fs/bpf proc ' /proc/mounts || umount -l /sys/fs/bpf
    rmdir /other 2>/dev/null
    mkdir -p /sys /run/aside
    [ -d /sys/kernel ] || mount -t sysfs sysfs /sys
    [ -d /sys/kernel/security/lockdown ] || [ -e /sys/kernel/security/lsm ] || mount -t securityfs securityfs /sys/kernel/security
    grep -q ' /sys/fs/bpf bpf ' /proc/mounts || mount -t bpf bpf /sys/fs/bpf
    grep -q ' /sys/kernel/tracing ' /proc/mounts || mount -t tracefs tracefs /sys/kernel/tracing
    grep -q ' /sys/kernel/debug ' /proc/mounts || mount -t debugfs debugfs /sys/kernel/debug
    grep -q ' /sys/fs/cgroup ' /proc/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup
}
in_peer="unshare -m --propagation shared"
move_aside() {
    mount -t tmpfs tmpfs /run/aside && mkdir /run/aside/x &&
        mount --move /sys/fs/bpf /run/aside/x && umount -l /run/aside
}
in_a_peer() { mount --make-rshared / && $in_peer umount /sys/fs/bpf; }
below_a_peer() {
    mount --make-rshared / && $in_peer sh -c 'mount --make-private / && umount -l /sys'
}
in_a_master() {
    mount --make-rshared /
    holding $in_peer sh -c 'echo there; exec cat >/dev/null'
    mount --make-rslave /
    nsenter -t $held -m umount /sys/fs/bpf
    result=$?
    released
    return $result
}
of_a_copy() { # unmounting the copy tells the original
    mount --make-rshared / && mount --rbind /sys /run/aside && umount -l /run/aside
}
mount_point_removed() { unshare -m sh -c 'umount -l /sys && rmdir /sys'; }
mount_point_covered() { unshare -m sh -c 'umount -l /sys && mkdir /other && mv -T /other /sys'; }
slipped_in() { # the copy of a mount in a peer comes to stand beneath, and goes with a process
    holding sh -c 'echo there; exec cat >/dev/null'
    mount --make-rshared / && mount --bind /sys /run/aside && mount --bind /proc/$held /run/aside/fs/bpf
    result=$?
    released
    return $result
}
# What is mounted there first is a folder of sysfs as it is below the pins, for a copy to go where it is.
bare_folder() { mount --make-rshared / && mount --bind /sys /run/other; }
by_a_descriptor() { # that was opened before anything was mounted there
    bare_folder
    holding sh -c 'echo there; exec cat >/dev/null'
    attacker late /proc/$held /run/other/fs/bpf /run/aside
    result=$?
    released
    return $result
}
in_one_group() { # with a mount that was a stranger's
    mount --make-rshared / && mount --bind /sys /run/other && mount --make-private /run/other &&
        mount -t tmpfs tmpfs /run/other/fs/bpf && attacker join /sys /run/other && umount /run/other/fs/bpf
}
beneath() {
    holding sh -c 'echo there; exec cat >/dev/null'
    attacker beneath /proc/$held /sys/fs/bpf
    result=$?
    released
    return $result
}
attacks="move_aside in_a_peer below_a_peer in_a_master of_a_copy mount_point_removed mount_point_covered slipped_in by_a_descriptor in_one_group"

# 6.5 and later.
case $(uname -r) in 6.1.*) ;; *) attacks="$attacks beneath" ;; esac

gone() { test "$(programs drop_port)" = 0; }
for attack in $attacks; do
    restore
    bpftool prog load $objects/drop_port.bpf.o $pinned
    $attack >$out 2>&1
    check "without a gate, $attack takes a pinned program away" awaits gone
    rm -f $pinned
done
restore
attacker admit
[ -d /sys/fs/bpf/bpfseal ] || exit 1
for attack in $attacks; do
    if ! $attack >$out 2>&1 && grep -q -i -E 'not permitted|permission denied' $out; then
        ok "$attack is refused" "$(said)"
    else
        failed "$attack is refused" "$(said)"
    fi
    restore
    refused "after $attack the gate refuses" bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned
    check "after $attack the pins are there" test -e /sys/fs/bpf/bpfseal/link_gate2_prog
done
refused "the root is not exchanged" pivot_root /run /run/aside
check "others move mounts by the new call, and unmount" unshare -m sh -c 'mount -t tmpfs t /run && mount --make-rprivate / && umount -l /sys/fs/bpf'
mount -t tmpfs tmpfs /run/aside
check "other file systems are unmounted" umount /run/aside
attacker disarm
