from .config import PhantomConfig as PhantomConfig
from .linked import Truth as Truth
from .linked import truth as truth
from .write import ready as ready
from .write import write_phantom as write_phantom
