# Structs of functions: an admitted member loads as that member, and as no other.
attacker members
