# A signed loader that loads anything (bpf_sys_bpf): what it loads is judged all the same.
# spare: 6.12
fixture=$objects/universal_loader.bpf.o
attacker unjudged $fixture
attacker admit $fixture
[ -d /sys/fs/bpf/bpfseal ] || exit 1
attacker universal $fixture
attacker watch
attacker disarm
