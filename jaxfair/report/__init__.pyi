from .__main__ import main as main
from .single import Run as Run
from .single import load_run as load_run
from .single import run_from_predictions as run_from_predictions
from .write import run as run
from .write import tables as tables
