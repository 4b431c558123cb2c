# kernels: 6.12
# Seventy thousand programs at once, each with a descriptor.
ulimit -n 80000
attacker many 70000
