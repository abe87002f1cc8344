from .config import PhantomConfig as PhantomConfig
from .write import ready as ready
from .write import write_phantom as write_phantom
