from .__main__ import main as main
from .__main__ import run as run
from .__main__ import tables as tables
from .single import Run as Run
from .single import load_run as load_run
from .single import run_from_predictions as run_from_predictions
