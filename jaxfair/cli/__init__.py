"""The command line: one parser for all commands, and the config files that they are given.

No jax here: `jaxfair --help` and `jaxfair report` start without it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
