from .__main__ import main as main
from .loading import load_run as load_run
from .loading import run_from_predictions as run_from_predictions
from .single import Run as Run
from .write import compared as compared
from .write import run as run
from .write import tables as tables
