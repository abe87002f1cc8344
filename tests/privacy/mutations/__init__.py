"""The sharp edges with their faults; `python -m tests.privacy.mutations` runs them."""
