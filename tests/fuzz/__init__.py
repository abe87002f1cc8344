"""Damaged files of every format, given to the readers: `python -m tests.fuzz`."""
