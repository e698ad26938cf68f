"""Training: data, augmentation, the loop and its checkpoints."""
