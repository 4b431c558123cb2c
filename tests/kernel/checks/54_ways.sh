# Every way to load and attach: unsigned programs on none, signed ones where their rule says.
attacker ways
attacker tokens
