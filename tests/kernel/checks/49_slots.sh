# Every place of a hook is taken before the gate is armed: arming must not fail half-way.
# spare: 6.12
attacker slots
