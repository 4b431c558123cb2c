# Yesterday's state folder put back, marks deleted, the calendar set back: what is over stays over while the gate
# is armed, whoever asks, the command alone or the daemon that starts on it.
# spare: 6.12 7.3
. /lab/policy.sh
check "an older version is sealed" sealed count_exec 1.0
mv count_exec.tar older.tar
check "and a newer one" sealed count_exec 2.0
check "and a newer policy" policy 2 newer.toml
prints "arm" '^Enforcing' $arm
prints "admit the older version" 'admitted +count_exec' $X admit older.tar
older=$(sed -n 's/.*, \(sha256:[0-9a-f]*\), .*/\1/p' $out)
cp -a state yesterday
prints "arm with the newer policy" 'version 2' $X arm --policy newer.toml
prints "admit the newer version" 'admitted +count_exec' $X admit count_exec.tar
check "withdraw the older one" $X withdraw $older
permitted audit
audit="$X arm --policy newer.toml --audit-only --permit audit.permit"
prints "a permit is used" '^Audit only' $audit
prints "and the gate enforces again" '^Enforcing' $X arm --policy newer.toml
fails "the older version is not admitted" 'E307 min-version' $X admit older.tar
rm state/marks.json
fails "nor where its marks were deleted" 'E307 min-version' $X admit older.tar
prints "the newer one is" 'admitted +count_exec' $X admit count_exec.tar

# yesterdays WHO: what was over is over with the folder of yesterday, for WHO asks.
yesterdays() {
    prints "$1: status says that the older policy is not taken" 'NOT taken: E702' $X status
    fails "$1: an older policy is refused" 'E702 older-policy' $X arm --policy policy.toml
    prints "$1: by the newer one yesterday's bundle is not admitted" "NOT admitted $older: E307" $X arm --policy newer.toml
    fails "$1: a used permit is refused" 'E704 permit-scope: the permit was used already' $audit
    fails "$1: an older version is refused" 'E307 min-version' $X admit older.tar
    prints "$1: a newer one is admitted" 'admitted +count_exec' $X admit count_exec.tar
    refused "$1: unsigned is refused" bpftool prog load $objects/drop_port.bpf.o /sys/fs/bpf/unsigned
}
rm -rf state && cp -a yesterday state
yesterdays "a command"
rm -rf state && cp -a yesterday state
check "the daemon starts on it" daemon
yesterdays "the daemon"

# The calendar.
ahead() { date -s @$(($(date +%s) + $1)) >/dev/null; }
pack() { bpfseal pack $objects/watch_open.bpf.o -o watch_open.tar --name watch_open --version 1.0; }
check "a bundle that nobody signs" pack
bundle=$(sed -n 's/.*digest *\(sha256:[0-9a-f]*\).*/\1/p' $out)
{
    policy 3 next.toml && cat next.toml
    printf '[[exception]]\nbundle = "%s"\nreason = "INC-1"\nuntil = %s\n' \
        $bundle $(date -u -d @$(($(date +%s) + 3600)) +%Y-%m-%dT%H:%M:%SZ)
} >excepted.toml
check "an exception for an hour" bpfseal policy sign excepted.toml --key authority.key
prints "arm with it" 'version 3' $X arm --policy excepted.toml
prints "it lets the bundle in" 'exception "INC-1"' $X admit watch_open.tar
check "which loads" loads watch_open
permitted disarm
load="bpftool prog loadall $objects/watch_open.bpf.o /sys/fs/bpf/over"
over() {
    prints "$1 the gate enforces" '^Enforcing' $X status
    refused "$1 the exception is over" $load
    fails "$1 it lets nothing in" 'E201 no-signature.*the exception "INC-1", line [0-9]+, ended' $X admit watch_open.tar
    fails "$1 the permit is over" 'E704 permit-scope: the permit was good until' $X disarm --permit disarm.permit
}
ahead 7200
over "two hours later"
ahead -7200
over "set back"
kill -9 $daemon
wait $daemon 2>/dev/null
over "set back, without the daemon,"
ahead 7200
permitted disarm
prints "disarm" Disarmed $X disarm --permit disarm.permit
ahead -7200
