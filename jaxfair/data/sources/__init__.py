"""One module a data set: where it comes from and how its table is read; `catalog` lists them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
