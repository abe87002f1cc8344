"""Private classification of skin lesions, malignant or not, by a ResNet9.

    python -m jaxfair.train --config configs/derm_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_resnet.py:plain --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_resnet.py:phantom
    python -m jaxfair.train --config configs/derm_resnet.py:phantom --config.dp.enabled=False

DIR (or the variable JAXFAIR_DATA) holds `metadata.csv` and `images_48_rgb.npz`: HAM10000 lesions
at 48 x 48 with sex and age, one image per lesion (Tschandl et al. 2018, CC BY-NC-SA 4.0). The
unit of privacy is the lesion: the table names no patients. `data.fold` 0 to 4 chooses which fifth
tests.

`plain` is the same network trained without privacy as such networks are: small batches, twelve
passes; about ten minutes on one CPU core. The private run takes 120 steps of 256 expected
lesions, nine minutes. Both flip and turn the images, and end with a rate of zero. A linear head
on fixed features (configs/derm_probe.py) does better at this number of lesions; what was measured
stands in experiments/e03_dp_classifier.

`phantom` is the same network on drawn thoraxes.
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
    """Returns the experiment; `arg` is empty, "plain" or "phantom"."""
    if arg not in ("", "plain", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '', 'plain', 'phantom'.")
    config = ConfigDict({"name": "derm_resnet", "seed": 1})
    config.data = section(
        DataConfig,
        source="table",
        table=section(
            TableConfig,
            file="metadata.csv",
            stack="images_48_rgb.npz",
            id="image_id",
            patient="lesion_id",
            unit="lesion",
            sex="sex",
            age="age",
            labels=("malignant",),
            name="ham10000",
            title="HAM10000 skin lesions, 48 x 48",
            licence="CC BY-NC-SA 4.0 (Tschandl, Rosendahl, Kittler 2018)",
        ),
        image_size=48,
        channels=3,
        split="folds",
        public_size=4_200,  # 70 % of 5,984, rounded; fixes q and delta
    )
    config.method = section(ClassifierConfig, backbone="resnet9", activation="mish")
    config.method.name = "classifier"
    config.augment = section(AugmentConfig, flip=0.5, quarter_turns=True)
    config.train = section(TrainConfig, steps=120, expected_batch_size=256, checkpoint_every=40)
    config.optim = section(
        OptimConfig,
        name="nadam",
        learning_rate=0.001,
        decay_steps=config.train.get_ref("steps"),
        average="ema",  # post-processing: it costs no privacy
        ema_decay=0.9,
    )
    config.dp = section(
        PrivacyConfig,
        epsilon=8.0,
        l2_clip_norm=1.0,
        microbatch=32,
        tuning_runs=5,  # settings compared on fold 0
    )
    variants = {"plain": _plain, "phantom": _phantom}
    return variants[arg](config) if arg else config


def _plain(config: ConfigDict) -> ConfigDict:
    """Trains as one does without privacy."""
    config.dp.enabled = False
    config.optim.ema_decay = 0.98
    config.train.steps = 780
    config.train.expected_batch_size = 64
    config.train.checkpoint_every = 130
    return config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Puts the network on the stand-in's films and their layout; forty steps show the way."""
    config.name = "derm_resnet_phantom"
    config.data.table = ConfigDict(
        {
            "file": "table.csv",
            "image": "image",
            "patient": "patient",
            "sex": "sex",
            "age": "age",
            "view": "view",
            "labels": ("cardiomegaly", "pleural_effusion_right", "pleural_effusion_left"),
        }
    )
    config.data.channels = 1
    config.data.public_size = 500
    config.data.phantom = ConfigDict({"n_images": 1_200, "seed": 0, "pixels": 96})
    config.augment = section(AugmentConfig)  # a thorax has a top and a left
    config.dp.microbatch = 16
    config.dp.tuning_runs = 1
    config.train.steps = 40
    config.train.expected_batch_size = 64
    return config
