from .__main__ import CLAIM as CLAIM
from .__main__ import describe as describe
from .__main__ import main as main
from .__main__ import run as run
from .faults import FAULTS as FAULTS
from .faults import self_test as self_test
from .trials import Size as Size
