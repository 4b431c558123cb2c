# Replacing other programs' functions: those that the rule names, and no others.
attacker replace $objects
