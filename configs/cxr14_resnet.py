"""Private multi-label classification on ChestX-ray14 with a ResNet9.

    python -m jaxfair.train --config configs/cxr14_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/cxr14_resnet.py:phantom
    python -m jaxfair.train --config configs/cxr14_resnet.py:phantom --config.dp.enabled=False

The model, optimiser, clip, batch and learning rate of "Private, fair and accurate" (Tayebi
Arasteh et al. 2024) at its top epsilon of 7.89, on the fourteen labels of ChestX-ray14, per
patient, with the published split (`data.split="source"`; its training patients are split
again for validation).

`phantom` is the same experiment on drawn thoraxes in ChestX-ray14's layout, forty steps long.
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
    config = ConfigDict({"name": "cxr14_resnet", "seed": 1})
    config.data = section(
        DataConfig,
        source="cxr14",
        image_size=224,
        resize="stretch",  # DP_CXR; or "crop", which keeps the aspect
        equalize=True,
        split="source",
        public_size=25_000,  # training patients, rounded; fixes q and delta
    )
    config.method = section(ClassifierConfig, backbone="resnet9", activation="mish")
    config.method.name = "classifier"
    config.augment = section(AugmentConfig)  # DP_CXR trains its private model without
    config.optim = section(
        OptimConfig,
        name="nadam",
        learning_rate=0.0005,
        average="ema",  # post-processing: it costs no privacy
    )
    config.dp = section(PrivacyConfig, epsilon=7.89, l2_clip_norm=1.5)
    config.train = section(TrainConfig, steps=20_000, expected_batch_size=128, checkpoint_every=500)
    return _phantom(config) if arg == "phantom" else config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Shrinks the experiment to the stand-in."""
    config.name = "cxr14_resnet_phantom"
    config.data.image_size = 64
    config.data.public_size = 500
    config.data.phantom = ConfigDict({"n_images": 1_200, "seed": 0, "pixels": 96})
    config.optim.learning_rate = 1e-3
    config.dp.microbatch = 16
    config.train.steps = 40
    config.train.expected_batch_size = 64
    config.train.checkpoint_every = 20
    return config
