# spare: 6.1 7.3
# Seventy thousand programs at once, each with a descriptor.
ulimit -n 80000
attacker many 70000
