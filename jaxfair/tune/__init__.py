"""A search for settings that is paid for: the best of a random number of runs, under one claim."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
