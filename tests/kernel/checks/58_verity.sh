# A generator whose file has fs-verity: the kernel checks every page that it reads, so what was changed
# below the file system is not executed. Pinned by SHA-256 it is, while the file stays in memory.
# disk: yes
# tool: e2fsprogs mke2fs
# tool: fsverity fsverity
. /lab/policy.sh
. /lab/below.sh
disk=/dev/nvme0n1
mkdir -p /mnt
# Not Busybox's.
check "a file system with fs-verity" /usr/sbin/mke2fs -q -t ext4 -O verity,^has_journal -b 4096 $disk
check "it is mounted" mount -t ext4 $disk /mnt
for name in sealed plain other; do
    cp /lab/bin/maker /mnt/$name
    chmod +x /mnt/$name
done
check "fs-verity is switched on" fsverity enable /mnt/sealed
check "and on another file" fsverity enable /mnt/other
sync
sum=$(sha256sum /lab/bin/maker | cut -d' ' -f1)
measured=$(fsverity measure /mnt/sealed | sed 's/sha256:\([0-9a-f]*\).*/\1/')
zeros=$(printf %064d 0)
generator() { # NAME PINS
    printf '[[generator]]\nname = "%s"\nexe = { path = "/mnt/%s", %s }\nprogram_types = ["socket_filter"]\n' $1 $1 "$2"
}
{
    sed 's/^version = .*/version = 2/' policy.toml
    generator sealed "fsverity = \"$measured\""
    generator plain "sha256 = \"$sum\", fsverity = \"$measured\""
    generator other "fsverity = \"$zeros\", sha256 = \"$sum\""
} >with.toml
check "the authority signs a policy with generators" bpfseal policy sign with.toml --key authority.key
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
fails "before the policy names it" 'errno 1' /mnt/sealed
prints "arm with generators" '^Enforcing' $X arm --policy with.toml --authority authority.pub
prints "known by fs-verity it loads" loaded /mnt/sealed
prints "without fs-verity its contents are compared" loaded /mnt/plain
prints "another measurement is not let in" 'other: not let in.*its fs-verity digest sha256:.* is not in the policy' $X status
fails "and does not load" 'errno 1' /mnt/other

# Below the file system a word of each file becomes another one; then what was read of them is dropped.
respelled $disk l L
prints "changed below the file system, a file known by SHA-256 is executed" '^Loaded' /mnt/plain
unexecuted "one known by fs-verity is not" /mnt/sealed
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
umount /mnt
:
