"""What to run: studies in YAML, the training recipe, the plan of trials, the known data sets."""
