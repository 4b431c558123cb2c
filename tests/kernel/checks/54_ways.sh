# Every way to load and attach: unsigned programs on none, signed ones where their rule says.
# modules: act_bpf tun kcm
for module in act_bpf tun kcm; do check "$module is there" insmod /lab/modules/$module.ko; done
[ -c /dev/net/tun ] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; }
ip link set lo up
attacker ways
attacker held
attacker tokens
