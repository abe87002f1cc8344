"""A private classifier of CT volumes by their slices: 2.5D attention over a ResNet-18.

    python -m jaxfair.train --config configs/ct_slices.py --config.data.root=DIR
    python -m jaxfair.train --config configs/ct_slices.py:phantom
    python -m jaxfair.train --config configs/ct_slices.py:phantom --config.dp.enabled=False

The pancreas model of "Private, fair and accurate" (TUM-AIMED/2.5DAttention; 12,227,652
parameters): every slice of all three orientations through one network, then attention.
BatchNorm is GroupNorm here, and the step is private. `--config.method.weights=FILE` begins
with public weights of the backbone.

`phantom` is the same experiment on the middle of drawn abdomens, six steps long.
"""

from ml_collections import ConfigDict

from jaxfair.config import TrainConfig, section
from jaxfair.data.dataset import DataConfig
from jaxfair.data.sources.table import TableConfig
from jaxfair.data.transforms import AugmentConfig
from jaxfair.engine.optim import OptimConfig
from jaxfair.methods.classifier import ClassifierConfig
from jaxfair.privacy.plan import PrivacyConfig


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    if arg not in ("", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '' and 'phantom'.")
    config = ConfigDict({"name": "ct_slices", "seed": 1})
    config.data = section(
        DataConfig,
        source="volumes",
        table=section(
            TableConfig,
            file="table.csv",
            image="image",
            patient="patient",
            sex="sex",
            age="age",
            labels=("lesion",),
        ),
        volume=(64, 128, 128),  # d, h, w
        spacing=(4.0, 2.0, 2.0),  # mm, to which a volume is resampled
        window=(-160.0, 240.0),  # Hounsfield units that become black and white
        split="random",
        public_size=1_000,  # of 1,625 scans, rounded; fixes q and delta
    )
    config.method = section(ClassifierConfig, backbone="slices", ndim=3, channels=1)
    config.method.name = "classifier"
    config.augment = section(AugmentConfig)
    config.optim = section(
        OptimConfig,
        name="nadam",
        learning_rate=0.0002,
        average="ema",  # post-processing: it costs no privacy
    )
    config.dp = section(PrivacyConfig, epsilon=8.0, l2_clip_norm=1.0)
    config.train = section(TrainConfig, steps=800, expected_batch_size=64, checkpoint_every=50)
    return _phantom(config) if arg == "phantom" else config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Shrinks the experiment to the stand-in."""
    config.name = "ct_slices_phantom"
    config.data.volume = (16, 24, 28)
    config.data.spacing = (6.25, 5.6, 5.6)
    config.data.public_size = 75
    config.data.phantom = ConfigDict({"n_images": 120, "seed": 0, "pixels": 64, "slices": 32})
    config.optim.learning_rate = 1e-3
    config.dp.microbatch = 2
    config.train.steps = 6
    config.train.expected_batch_size = 8
    config.train.checkpoint_every = 3
    return config
