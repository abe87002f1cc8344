from .config import DataConfig as DataConfig
from .config import make_data_config as make_data_config
from .dataset import Dataset as Dataset
from .dataset import open_dataset as open_dataset
from .dataset import prepare as prepare
