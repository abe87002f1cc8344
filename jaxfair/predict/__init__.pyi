from .scoring import run as run
