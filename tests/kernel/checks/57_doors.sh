# Ways into kernel memory: the policy's switches, one by one.
attacker doors
