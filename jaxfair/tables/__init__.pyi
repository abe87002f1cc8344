from .ages import years as years
from .reader import FORMATS as FORMATS
from .reader import read_table as read_table
from .values import MISSING as MISSING
from .values import look_alikes as look_alikes
from .values import names as names
from .values import numbers as numbers
from .values import texts as texts
