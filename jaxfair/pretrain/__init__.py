"""First weights that no patient shaped: a network trained on drawn images."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
