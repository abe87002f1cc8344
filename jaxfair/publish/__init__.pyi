from .asking import Asked as Asked
from .release import run as run
