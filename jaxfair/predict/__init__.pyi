from .__main__ import run as run
