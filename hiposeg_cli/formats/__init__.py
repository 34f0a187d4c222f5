"""Readers of raw annotations: each yields ids exactly as published; what they mean is the hierarchy's business."""
