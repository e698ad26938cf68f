"""What the trials of a study left behind: rows, epochs, and the journal in the folder of a run."""
