"""The phantom experiment, small enough for a test: seconds, not minutes."""

import pathlib

from ml_collections import ConfigDict

from jaxfair.config import load_config

__all__ = ["CONFIG", "OVERRIDES", "small_config"]

CONFIG = str(pathlib.Path(__file__).resolve().parents[1] / "configs" / "rsna_fae.py") + ":phantom"
OVERRIDES = {
    "data.image_size": 64,
    "data.public_size": 60,
    "data.phantom.n_images": 160,
    "data.phantom.pixels": 64,
    "method.hidden_dims": (8, 8),
    "dp.microbatch": 8,
    "train.steps": 6,
    "train.expected_batch_size": 8,
    "train.checkpoint_every": 2,
}


def small_config(root: pathlib.Path, **overrides) -> ConfigDict:
    """The phantom config with its data under `root`; overrides as `dp__epsilon=4.0`."""
    config = load_config(CONFIG)
    with config.unlocked():
        config.data.root = str(root / "phantoms")
        for name, value in OVERRIDES.items():
            config.update_from_flattened_dict({name: value})
        for name, value in overrides.items():
            config.update_from_flattened_dict({name.replace("__", "."): value})
    return config
