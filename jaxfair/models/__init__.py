"""Flax modules; none of them trains a BatchNorm."""
