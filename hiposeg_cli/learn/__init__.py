"""Training: batches, data, augmentation, prototypes, losses, the loop and its checkpoints."""
