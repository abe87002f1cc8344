"""Fairness statistics over tables of predictions. Knows nothing of jax."""
