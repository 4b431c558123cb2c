# Units by which real systemd is tried, and the policy that it needs. After policy.sh.
manager=/usr/lib/systemd/systemd
core=/usr/lib/x86_64-linux-gnu/systemd/libsystemd-core-257.so
units=/run/systemd/system
mkdir -p $units

# What a unit may do, as it finds out: one word each.
cat >try <<T
#!/bin/sh
exec 2>/dev/null >$PWD/\$1
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
        printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=%s/try %s\n' $PWD $name
        printf '%s\n' "$@"
    } >$units/$name.service
}
unit free
unit strict DevicePolicy=strict 'DeviceAllow=/dev/null rw'
unit silent IPAddressDeny=any
unit blind RestrictFileSystems=~sysfs

# systemd makes its firewalls as it goes: it is a generator. Its other programs are objects in a
# library, which can be signed.
ldd_of() {
    /usr/lib64/ld-linux-x86-64.so.2 --list $1 | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p'
}
policy_for_systemd() { # VERSION, to the standard output
    sed "s/^version = .*/version = $1/"'; /^scope/a map_sizes = { cgroup_hash = { max_entries = { min = 1, max = 65536 } } }\ntunables = { "*" = "any" }' policy.toml
    printf '[[generator]]\nname = "systemd"\nexe = { path = "%s", sha256 = "%s" }\nlibraries = [\n' $manager $(sha256sum $manager | cut -d' ' -f1)
    for library in $({ ldd_of $manager; ldd_of /usr/lib/x86_64-linux-gnu/libbpf.so.1; echo /usr/lib/x86_64-linux-gnu/libbpf.so.1; } | sort -u); do
        printf '{ path = "%s", sha256 = "%s" },\n' $library $(sha256sum $library | cut -d' ' -f1)
    done
    printf ']\nprogram_types = ["cgroup_skb"]\nmap_types = ["lpm_trie", "array"]\nuid = 0\n'
}
