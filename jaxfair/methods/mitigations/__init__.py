"""Functions Method -> Method that serve groups more evenly, and how each stands to privacy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
