from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import restore as restore
from .checkpoint import save as save
from .folder import RunFolder as RunFolder
from .log import MetricsLog as MetricsLog
from .log import progress_bar as progress_bar
