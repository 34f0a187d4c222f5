"""Inference: photo -> network -> label maps on disk."""
