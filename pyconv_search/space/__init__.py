"""Search spaces in YAML: parameters, conditions, constraints, and the networks they generate."""
