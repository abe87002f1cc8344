"""Private classification of lung opacities on RSNA chest X-rays with a ResNet9.

    python -m jaxfair.train --config configs/rsna_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/rsna_resnet.py:phantom
    python -m jaxfair.train --config configs/rsna_resnet.py:phantom --config.dp.enabled=False

The data of `rsna_fae` with their labels: opacity or not, films of the third class ("No Lung
Opacity / Not Normal") counted as not normal with `--config.data.anomaly=any`, else left out.
Patients of every class train. Without RSNA's mapping file the unit of privacy is the image.

`phantom` is the same experiment on drawn thoraxes in RSNA's layout, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.config import TrainConfig, section
from jaxfair.data.dataset import DataConfig
from jaxfair.data.transforms import AugmentConfig
from jaxfair.engine.optim import OptimConfig
from jaxfair.methods.classifier import ClassifierConfig
from jaxfair.privacy.plan import PrivacyConfig


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    if arg not in ("", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '' and 'phantom'.")
    config = ConfigDict({"name": "rsna_resnet", "seed": 1})
    config.data = section(
        DataConfig,
        source="rsna",
        image_size=224,
        anomaly="opacity",  # or "any"
        split="random",
        public_size=7_000,  # patients for training, rounded; fixes q and delta
    )
    config.method = section(ClassifierConfig, backbone="resnet9", activation="mish")
    config.method.name = "classifier"
    config.augment = section(AugmentConfig, flip=0.5)
    config.optim = section(
        OptimConfig,
        name="nadam",
        learning_rate=0.0005,
        average="ema",  # post-processing: it costs no privacy
    )
    config.dp = section(PrivacyConfig, epsilon=8.0, l2_clip_norm=1.5)
    config.train = section(TrainConfig, steps=5_000, expected_batch_size=128, checkpoint_every=250)
    return _phantom(config) if arg == "phantom" else config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Shrinks the experiment to the stand-in."""
    config.name = "rsna_resnet_phantom"
    config.data.image_size = 64
    config.data.public_size = 500
    config.data.phantom = ConfigDict({"n_images": 1_200, "seed": 0, "pixels": 96})
    config.optim.learning_rate = 1e-3
    config.dp.microbatch = 16
    config.train.steps = 40
    config.train.expected_batch_size = 64
    config.train.checkpoint_every = 20
    return config
