from .__main__ import main as main
from .__main__ import run as run
from .space import Field as Field
from .space import read_space as read_space
