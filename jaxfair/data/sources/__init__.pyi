from .base import MissingData as MissingData
from .base import Options as Options
from .base import Source as Source
from .base import SourceTable as SourceTable
from .catalog import SOURCES as SOURCES
