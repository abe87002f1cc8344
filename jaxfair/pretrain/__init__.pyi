from .__main__ import main as main
from .__main__ import run as run
from .contrast import ContrastConfig as ContrastConfig
from .contrast import alignment_and_uniformity as alignment_and_uniformity
from .contrast import make_contrast as make_contrast
from .images import draw as draw
from .images import view as view
