# The next build of the enforcer takes the place of its file while the gate enforces, if the policy names
# it; the gate stays, whoever is the daemon.
# spare: 6.12
. /lab/policy.sh
exe=$(command -v bpfseal-enforcer)
cp $exe old
# The programs of its gate are others, by the name of a function.
sed 's/emit_attempt/emit_attampt/g' $exe >next
chmod +x next
cp next other
printf y >>other
# Another layout of the gate's maps: the number is exchanged.
sed 's/bpfseal-gate-layout:[0-9a-f]\{16\}/bpfseal-gate-layout:0123456789abcdef/' next >strange
chmod +x strange
sum() { sha256sum $1 | cut -d' ' -f1; }
attempt="bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned"
check "the daemon starts" daemon
prints "arm" '^Enforcing' $arm
fails "no file takes its place unless the policy says so" 'E709 next-daemon.*version 1' $X upgrade next
{
    policy 2 named.toml && cat named.toml
    printf '[daemon]\nsha256 = ["%s", "%s"]\n' $(sum next) $(sum strange)
} >with.toml
check "a policy that names two" bpfseal policy sign with.toml --key authority.key
prints "arm with it" '^Enforcing' $X arm --policy with.toml --authority authority.pub
fails "another file does not" 'E709 next-daemon' $X upgrade other
# Where somebody can write below the next file.
mkdir elsewhere && mount -t tmpfs tmpfs elsewhere && touch elsewhere/${exe##*/}
mount --bind $exe elsewhere/${exe##*/}
kill -TERM $daemon
wait $daemon 2>/dev/null
fails "nor does it go to a file system of somebody's" 'on another file system than' \
    elsewhere/${exe##*/} --state /run/$SCRIPT/state --runtime /run/nowhere upgrade next
umount elsewhere/${exe##*/} && umount elsewhere
check "the daemon starts again" daemon
prints "admitted before" admitted admitted watch_open
fails "its file gets no other name" 'not permitted' ln $exe $exe-too
prints "the next one does" "is sha256:$(sum next) now; restart the daemon" $X upgrade next
check "its file is the next build" cmp next $exe
# As packages do, by a daemon that was not restarted.
printf '#!/bin/sh\nexec %s "$@"\n' "$exe${X#bpfseal-enforcer}" >place
chmod +x place
mkdir bin && cp place bin/bpfseal-enforcer
fails "a package does not bring what the policy does not name" 'E709 next-daemon' sh /lab/dist/package-postinst other $PWD/place
prints "it brings what the policy names" "^$exe is sha256:$(sum next) now" sh /lab/dist/package-postinst next $PWD/place
prints "a kernel that is not there does not stop the package manager" 'see above before you boot 9.9' \
    sh -c 'PATH=/run/$SCRIPT/bin:$PATH sh /lab/dist/kernel-postinst 9.9'
prints "nor kernel-install" 'see above before you boot 9.9' \
    sh -c 'PATH=/run/$SCRIPT/bin:$PATH sh /lab/dist/kernel-postinst add 9.9 /boot/entry'
check "one that is removed is nothing to look at" \
    sh -c 'said=$(PATH=/run/$SCRIPT/bin:$PATH sh /lab/dist/kernel-postinst remove 9.9 /boot/entry 2>&1) && [ -z "$said" ]'
check "its file is the same" cmp next $exe
prints "the daemon goes on" 'daemon +running' $X status
prints "it says that it is the build before" 'WARNING +the daemon is the build that was in its place before' $X status
own() { $X inventory | awk '$0 ~ / own / { print $1 }' | sort; }
own >own.before
refused "unsigned is refused" $attempt
fails "nobody writes the new file" 'not permitted' dd if=/dev/zero of=$exe bs=1 count=1 conv=notrunc
cp old again
fails "nobody puts the old one back" 'not permitted' mv again $exe
prints "events say so" 'E606 daemon-file' $X events
kill -TERM $daemon
wait $daemon 2>/dev/null
refused "without a daemon unsigned is refused" $attempt
# What somebody puts beside the pins must not keep the daemon from them.
junk=/sys/fs/bpf/bpfseal
check "a map beside the pins" bpftool map create $junk/map_junk type array key 4 value 4 entries 1 name junk
check "a folder" mkdir -p $junk/next_gate_bpf/full
check "an old one" mkdir -p $junk/kept_7/full
touch -d @0 $junk/kept_7
check "what is no link" bpftool map create $junk/link_junk type array key 4 value 4 entries 1 name junk
fails "the old build is nobody now" 'start the command again' ./old --state /run/$SCRIPT/state --runtime /run/$SCRIPT/run status
check "the next build starts" daemon
prints "and takes over" 'took over the armed gate' $X events
prints "it enforces" '^Enforcing' $X status
prints "its programs cannot come where the folder is" 'ALARM: daemon: the gate goes on as it is' $X events
prints "and status says so" "WARNING +the gate's programs are those of another build" $X status
refused "unsigned is refused as before" $attempt
rmdir $junk/next_gate_bpf/full
kill -TERM $daemon
wait $daemon 2>/dev/null
check "it starts again" daemon
prints "it brought its programs" "the gate's programs are those of this build now" $X events
check "nothing more is to be exchanged" eval '! $X status | grep -E "^ +WARNING"'
own >all
ls $junk | sed -n 's/^kept_//p' | grep -vx 7 | sort >kept
grep -vxFf kept all >own.after
check "they are as many as before" [ "$(wc -l <own.before)" = "$(wc -l <own.after)" ]
check "and none of those" eval '! grep -Fxf own.before own.after'
# Those of control groups run under a lock of RCU's that the kernel awaits.
check "which are kept, as they may be running" [ "$(grep -cxFf kept own.before)" = "$(($(wc -l <own.before) - 7))" ]
check "nothing of theirs is left beside" eval '! ls /sys/fs/bpf/bpfseal | grep next_'
check "what was admitted loads" loads watch_open
refused "unsigned is refused by it" $attempt
fails "a build with another gate cannot continue" 'E709 next-daemon.*cannot continue' $X upgrade strange
prints "it waits for the next boot" 'it begins with the next boot' $X upgrade --at-boot strange
prints "the daemon is asked as before" 'daemon +running' $X status
fails "it does not continue by itself" 'armed by another build: its maps hold other things' \
    bpfseal-enforcer --state /run/$SCRIPT/state --runtime /run/nowhere status
refused "and unsigned is refused" $attempt
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
check "without a gate a package puts its file in place" sh /lab/dist/package-postinst next $PWD/place
check "it is that file" cmp next place
kill -TERM $daemon
wait $daemon 2>/dev/null
mv old $exe
:
