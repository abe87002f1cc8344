"""Differential privacy: clipping, noise, sampling, accounting. Knows nothing of images.

`make_plan` shows the pieces joined by hand; `README.md` beside this file is the guarantee.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
