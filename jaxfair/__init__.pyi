from .engine.check import selfcheck as selfcheck
from .engine.fit import Fit as Fit
from .engine.fit import fit_private as fit_private
from .engine.fit import open_fit as open_fit

__version__: str
