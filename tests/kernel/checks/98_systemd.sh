# systemd as the first process of the machine: it starts before the gate is armed, becomes a generator by
# `systemctl daemon-reexec`, and switches the machine off while the gate enforces. The daemon runs in the unit
# that we ship, and is upgraded there. This script leaves the machine to systemd; what it says afterwards comes
# from its units and from the last hook of its shutdown.
# kernels: 6.1 6.12 7.3
# boot: systemd.log_target=null systemd.show_status=0
# files: systemd usr/lib/systemd/systemd usr/lib/systemd/systemd-executor usr/lib/systemd/systemd-shutdown usr/bin/systemctl
# files: systemd usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-257.so
# files: libbpf1 usr/lib/x86_64-linux-gnu/libbpf.so.1
# data: systemd usr/lib/systemd/system
. /lab/policy.sh
. /lab/units.sh
printf '%s\n' 0123456789abcdef0123456789abcdef >/etc/machine-id
exe=/lab/bin/bpfseal-enforcer
# The programs of its gate are others, by the name of a function.
sed 's/emit_attempt/emit_attampt/g' $exe >next
{
    policy_for_systemd 1
    printf '[daemon]\nsha256 = "%s"\n' $(sha256sum next | cut -d' ' -f1)
} >systemd.toml
check "the policy for systemd is signed" bpfseal policy sign systemd.toml --key authority.key
check "systemd's objects are enrolled" bpfseal enroll $core --key release.key --name systemd -o systemd.tar

# What runs inside, and what runs at the very end, after systemd has ended and unmounted everything.
cat >inside <<'E2'
#!/bin/sh
export PATH=/lab/bin:/usr/sbin:/usr/bin SCRIPT=98_systemd
exec </dev/null >/dev/ttyS0 2>&1
. /lab/lib.sh
cd /run/98_systemd
X=bpfseal-enforcer
finds() { # NAME UNIT WANT: what a unit may do
    rm -f $2
    systemctl start $2.service >$out 2>&1
    if [ "$(cat $2 2>/dev/null)" = "$3" ]; then ok "$1" "$3"; else failed "$1" "$(cat $2 2>&1) instead of $3: $(said)"; fi
}
# What systemd said last has no end of line.
echo
ok "systemd is the first process" "$(cat /proc/1/comm)"
finds "without a gate a firewall works" silent "device sysfs end"
check "the daemon starts as a unit" systemctl start bpfseal-enforcer.service
prints "arm under systemd" '^Enforcing' $X arm --policy systemd.toml --authority authority.pub
prints "admit its objects" 'admitted +restrict_filesystems' $X admit systemd.tar
refused "an unsigned program is refused" maker type 2
finds "armed, a device filter works" strict "network sysfs end"
finds "a process from before arming is no generator" silent "device network sysfs end"
check "systemctl daemon-reexec" systemctl daemon-reexec
finds "executed again it is one" silent "device sysfs end"
finds "its device filters work still" strict "network sysfs end"
finds "and its restricted file systems" blind "device network end"
finds "a unit without rules is free" free "device network sysfs end"
prints "the daemon runs on" 'daemon +running' $X status
check "a package brings the next build" sh /lab/dist/package-postinst /run/98_systemd/next /lab/bin/bpfseal-enforcer
check "it is what runs" cmp next /proc/$(systemctl show -P MainPID bpfseal-enforcer)/exe
prints "it brought its programs" 'programs are those of this build now' $X events
check "its file may be run by everybody" [ "$(stat -c %a /lab/bin/bpfseal-enforcer)" = 755 ]
prints "and it enforces" '^Enforcing' $X status
refused "an unsigned program is refused still" maker type 2
systemctl --no-block poweroff
E2
cat >last <<'E2'
#!/bin/sh
export PATH=/lab/bin:/usr/sbin:/usr/bin SCRIPT=98_systemd
exec </dev/null >/dev/ttyS0 2>&1
. /lab/lib.sh
refused "at the end of systemd's shutdown an unsigned program is refused" maker type 2
ok "systemd switches the machine off" "$1"
[ "$(cat /run/handover.ran)" = all ] && echo GUEST-RC=0 || echo GUEST-RC=1
E2
chmod +x inside last
mkdir -p /usr/lib/systemd/system-shutdown
cp last /usr/lib/systemd/system-shutdown/lab
sed 's,/usr/sbin/,/lab/bin/,' /lab/dist/bpfseal-enforcer.service >$units/bpfseal-enforcer.service
printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=%s/inside\n' $PWD >$units/inside.service
cat >/run/handover <<'E2'
#!/bin/sh
exec /usr/lib/systemd/systemd --system --unit=inside.service
E2
chmod +x /run/handover
:
