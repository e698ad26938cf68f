"""What is measured: commands that print ratios of things timed side by side in one run."""
