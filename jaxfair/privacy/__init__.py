"""Differential privacy: clipping, noise, sampling, accounting. Knows nothing of images."""
