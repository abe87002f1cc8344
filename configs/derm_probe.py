"""Private classification of skin lesions, malignant or not, by a linear head on fixed features.

    python -m jaxfair.train --config configs/derm_probe.py --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_probe.py --config.dp.epsilon=1
    python -m jaxfair.train --config configs/derm_probe.py:phantom
    python -m jaxfair.train --config configs/derm_probe.py:phantom --config.dp.enabled=False

DIR (or the variable JAXFAIR_DATA) holds `metadata.csv` and `images_48_rgb.npz`: HAM10000 lesions
at 48 x 48 with sex and age, one image per lesion (Tschandl et al. 2018, CC BY-NC-SA 4.0). The
unit of privacy is the lesion: the table names no patients.

Every step uses all lesions (q = 1): sixty noisy full-batch steps of which the last fifteen are
averaged. The learning rate follows epsilon, since less noise allows longer strides. Half a minute
on two CPU cores; `data.fold` 0 to 4 chooses which fifth tests. See
experiments/e03_dp_classifier for the AUROC at each epsilon.

`phantom` is the same probe on drawn thoraxes, which have a top and a left.
"""

from ml_collections import ConfigDict

from jaxfair.config import TrainConfig, section
from jaxfair.data.dataset import DataConfig
from jaxfair.data.sources.table import TableConfig
from jaxfair.engine.optim import OptimConfig
from jaxfair.methods.probe import ProbeConfig
from jaxfair.privacy.plan import PrivacyConfig


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    if arg not in ("", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '' and 'phantom'.")
    config = ConfigDict({"name": "derm_probe", "seed": 1})
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
    config.method = section(ProbeConfig)
    config.method.name = "linear_probe"
    config.dp = section(
        PrivacyConfig,
        epsilon=8.0,
        l2_clip_norm=1.0,
        microbatch=512,
        tuning_runs=190,  # feature sets and settings compared on these lesions, simulated
    )
    config.optim = section(
        OptimConfig,
        name="sgd",
        learning_rate=2.0 * config.dp.get_ref("epsilon"),  # follows --config.dp.epsilon
        momentum=0.9,
        average="late",
        average_from=45,
    )
    config.train = section(TrainConfig, steps=60, expected_batch_size=4_200, checkpoint_every=60)
    return _phantom(config) if arg == "phantom" else config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Puts the probe on the stand-in's films and their layout."""
    config.name = "derm_probe_phantom"
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
    config.method.symmetric = False
    config.dp.microbatch = 128
    config.dp.tuning_runs = 1
    config.train.expected_batch_size = 500
    return config
