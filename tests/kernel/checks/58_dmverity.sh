# A generator whose file is on a dm-verity volume: its root hash says what the file is, as long as the
# volume keeps its table. Linux 6.1 does not say when one gets another, and compares the contents.
# disk: yes
# modules: reed_solomon dm-mod dm-bufio dm-verity squashfs
# tool: e2fsprogs mke2fs
# tool: cryptsetup veritysetup
# tool: dmsetup dmsetup
# tool: squashfs-tools mksquashfs
. /lab/policy.sh
. /lab/below.sh
export DM_DISABLE_UDEV=1
disk=/dev/nvme0n1
zeros=$(printf %064d 0)
sectors=9600 # of the file system; the hashes come behind it
mkdir -p /vol /bound /linked_to
for module in reed_solomon dm-mod dm-bufio dm-verity squashfs; do
    check "module $module" insmod /lab/modules/$module.ko
done

# lower NAME START: a device with a third of the disk.
lower() { dmsetup create $1 --table "0 10240 linear $disk $2"; }
# hashed NAME: puts hashes behind the file system; the root hash goes to NAME.root.
hashed() {
    veritysetup format --data-blocks=$((sectors / 8)) --hash-offset=$((sectors * 512)) \
        --root-hash-file=/run/$1.root /dev/mapper/$1 /dev/mapper/$1
}
# volume NAME START LETTER: with generators that say "LETTERoaded".
volume() {
    lower $1 $2 && /usr/sbin/mke2fs -q -t ext4 -O ^has_journal -b 4096 /dev/mapper/$1 $((sectors / 8)) &&
        mount -t ext4 /dev/mapper/$1 /vol || return 1
    mkdir /vol/sub
    for file in maker spoiled other sub/maker; do
        sed "s/loaded/$3oaded/" /lab/bin/maker >/vol/$file
        chmod +x /vol/$file
    done
    umount /vol
    hashed $1
}
squashed() {
    mkdir /run/tree && cp /lab/bin/maker /run/tree && mksquashfs /run/tree /run/image -quiet -no-progress &&
        lower squashed 20480 && dd if=/run/image of=/dev/mapper/squashed bs=4096 conv=fsync && hashed squashed
}
# device NAME OPTION...: the volume on that device.
device() {
    lower=$1
    shift
    veritysetup open /dev/mapper/$lower vol /dev/mapper/$lower $(cat /run/$lower.root) \
        --hash-offset=$((sectors * 512)) "$@"
}
opened() { device ours "$@" && mount -r -t ext4 /dev/mapper/vol /vol; }
closed() { umount /vol && veritysetup close vol; }
# table NAME: a table of that volume is put in the place of the one that is there.
table() { dmsetup load vol --readonly --table "$(cat /run/$1.table)" && dmsetup suspend vol && dmsetup resume vol; }

check "a volume" volume ours 0 l
check "and another one" volume theirs 10240 L
check "and one with squashfs" squashed
ours=$(cat /run/ours.root)
check "theirs opens" device theirs
dmsetup table vol >/run/theirs.table
check "and closes" veritysetup close vol
check "ours opens and is mounted" opened
dmsetup table vol >/run/ours.table
cp /vol/maker /run/plain
ln -s /vol /linked
mount --bind /vol/sub /bound
sum=$(sha256sum /vol/maker | cut -d' ' -f1)

generator() { # NAME PATH PINS
    printf '[[generator]]\nname = "%s"\nexe = { path = "%s", %s }\nprogram_types = ["socket_filter"]\n' "$@"
}
{
    sed 's/^version = .*/version = 2/' policy.toml
    generator maker /vol/maker "dmverity = [\"$ours\", \"$(cat /run/squashed.root)\"]"
    generator spoiled /vol/spoiled "dmverity = [\"$zeros\", \"$ours\"], sha256 = \"$zeros\""
    generator other /vol/other "dmverity = \"$zeros\", sha256 = \"$sum\""
    generator plain /run/plain "dmverity = \"$ours\", sha256 = \"$sum\""
    generator linked /linked/maker "dmverity = \"$ours\""
    generator bound /bound/maker "dmverity = \"$ours\""
} >with.toml
check "the authority signs a policy with generators" bpfseal policy sign with.toml --key authority.key
# It looks when it is told to, so that the gate is seen to refuse by itself.
check "the daemon starts" daemon 1h
prints "arm" '^Enforcing' $arm
fails "before the policy names it" 'errno 1' /vol/maker
prints "arm with generators" '^Enforcing' $X arm --policy with.toml --authority authority.pub
prints "on no volume its contents are compared" loaded /run/plain
case $(uname -r) in
6.1.*)
    prints "this kernel does not say when a volume gets another table" 'maker: not let in.*needs Linux 6.12' $X status
    fails "so nothing is known by one" 'errno 1' /vol/maker
    check "somebody pins something where the hook would be" \
        bpftool map create /sys/fs/bpf/bpfseal/link_note_volume type array key 4 value 4 entries 1 name junk
    prints "reload" . $X reload
    prints "it is not taken for the hook" 'maker: not let in.*needs Linux 6.12' $X status
    prints "the contents are compared" loaded /vol/other
    ;;
*)
    prints "known by its volume it loads" loaded /vol/maker
    prints "by one of two volumes" loaded /vol/spoiled
    prints "on another volume it is not let in" 'other: not let in.*root hash sha256:.* is not in the policy' $X status
    fails "whatever its contents" 'errno 1' /vol/other
    prints "links could show another file" 'linked: not let in.*a path without symbolic links' $X status
    prints "and mounts of a folder" 'bound: not let in.*a mount of /sub' $X status

    # Below the volume a word of one file becomes another one.
    respelled $disk l X
    unexecuted "changed below the volume it is not executed" /vol/spoiled
    respelled $disk X l
    prints "changed back it is" loaded /vol/spoiled

    fails "the volume takes no table of another kind" . \
        dmsetup load vol --readonly --table "0 $sectors linear /dev/mapper/theirs 0"
    check "it takes another root hash" table theirs
    fails "then its files are no generators" 'errno 1' /vol/maker
    prints "and events say why" 'E430 generator-limit.*given another table' $X events
    check "the first table comes back" table ours
    fails "what was read in between may stay in memory" 'errno 1' /vol/maker
    prints "reload" . $X reload
    prints "status says what to do" 'maker: not let in.*another table since arming; close the volume' $X status
    fails "still no generator" 'errno 1' /vol/maker
    umount /bound
    check "the volume is closed" closed
    check "and opened again" opened
    fails "nobody has looked at it yet" 'errno 1' /vol/maker
    prints "reload again" . $X reload
    prints "then it is a generator" loaded /vol/maker
    check "it is suspended and resumed" eval 'dmsetup suspend vol && dmsetup resume vol'
    fails "which counts as another table" 'errno 1' /vol/maker
    prints "a look lets go of its files" . $X reload
    check "it is closed again" closed
    check "and opened so that errors pass" opened --ignore-corruption
    prints "reload once more" . $X reload
    prints "that is not let in" 'maker: not let in.*the option ignore_corruption' $X status
    fails "and loads nothing" 'errno 1' /vol/maker
    umount /vol && veritysetup close vol
    check "a volume with squashfs" eval 'device squashed && mount -r -t squashfs /dev/mapper/vol /vol'
    prints "the daemon looks" . $X reload
    prints "its file is a generator, too" loaded /vol/maker
    ;;
esac
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
kill -TERM $daemon
wait $daemon 2>/dev/null
umount /bound 2>/dev/null
closed
dmsetup remove ours
dmsetup remove squashed
dmsetup remove theirs
:
