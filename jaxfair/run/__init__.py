"""One training as it lies on disk: its folder, its checkpoints and its log."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
