# Attaching: admitted programs where their rules say and elsewhere, probes nowhere.
attacker place
