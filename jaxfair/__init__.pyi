from .engine.check import selfcheck as selfcheck
from .engine.fit import Fit as Fit
from .engine.fit import fit_private as fit_private
from .engine.fit import open_fit as open_fit
from .model_file.model import Model as Model
from .model_file.model import load_model as load_model

__version__: str
