# The gate under load: racing threads, a full table of records.
attacker race 40
attacker fill
