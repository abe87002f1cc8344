from .__main__ import main as main
from .__main__ import run as run
from .__main__ import table as table
from .config import BenchmarkConfig as BenchmarkConfig
from .workload import Workload as Workload
from .workload import make_workload as make_workload
