from .catalog import MITIGATIONS as MITIGATIONS
from .catalog import Mitigation as Mitigation
from .catalog import mitigated as mitigated
