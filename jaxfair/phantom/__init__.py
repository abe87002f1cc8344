"""Drawn stand-ins for every source, in the files that it publishes; no patient is behind them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
