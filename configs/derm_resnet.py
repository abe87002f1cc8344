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
passes, flips and turns; about five minutes on two CPU cores. The private run takes sixty
steps of 256 expected lesions. A linear head on fixed features (configs/derm_probe.py) does better
at this number of lesions; what was measured stands in experiments/e03_dp_classifier.

`phantom` is the same network on drawn thoraxes.
"""

from ml_collections import ConfigDict, config_dict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "plain" or "phantom"."""
    if arg not in ("", "plain", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '', 'plain', 'phantom'.")
    config = ConfigDict()
    config.name = "derm_resnet"
    config.seed = 1

    config.data = ConfigDict()
    config.data.source = "table"
    config.data.root = config_dict.placeholder(str)  # else the variable JAXFAIR_DATA
    config.data.prepared = config_dict.placeholder(str)  # else beside the root
    config.data.table = ConfigDict()
    config.data.table.file = "metadata.csv"
    config.data.table.stack = "images_48_rgb.npz"
    config.data.table.id = "image_id"
    config.data.table.patient = "lesion_id"
    config.data.table.unit = "lesion"
    config.data.table.sex = "sex"
    config.data.table.age = "age"
    config.data.table.labels = ("malignant",)
    config.data.table.name = "ham10000"
    config.data.table.title = "HAM10000 skin lesions, 48 x 48"
    config.data.table.licence = "CC BY-NC-SA 4.0 (Tschandl, Rosendahl, Kittler 2018)"
    config.data.image_size = 48
    config.data.channels = 3
    config.data.split = "folds"
    config.data.folds = 5
    config.data.fold = 0
    config.data.public_size = 4_200  # 70 % of 5,984, rounded; fixes q and delta

    config.method = ConfigDict()
    config.method.name = "classifier"
    config.method.target = "multi-label"
    config.method.backbone = "resnet9"
    config.method.activation = "mish"
    config.method.norm = "group"
    config.method.weights = config_dict.placeholder(str)  # a public state dict of the backbone
    config.method.multiplicity = 1
    config.method.last_layer = False
    config.augment = ConfigDict()
    config.augment.flip = 0.0
    config.augment.rotation = 0.0
    config.augment.shift = 0.0
    config.augment.intensity = 0.0

    config.optim = ConfigDict()
    config.optim.name = "nadam"
    config.optim.learning_rate = 0.001
    config.optim.average = "ema"  # post-processing: it costs no privacy
    config.optim.ema_decay = 0.95

    config.dp = ConfigDict()
    config.dp.enabled = True
    config.dp.epsilon = 8.0
    config.dp.l2_clip_norm = 1.0
    config.dp.delta = config_dict.placeholder(float)  # else min(1e-5, 0.1 / public_size)
    config.dp.unit = config_dict.placeholder(str)  # else the lesion
    config.dp.clipping = "auto"
    config.dp.microbatch = 32
    config.dp.tuning_runs = 1
    config.dp.insecure_seed = config_dict.placeholder(int)

    config.train = ConfigDict()
    config.train.steps = 60
    config.train.expected_batch_size = 256
    config.train.checkpoint_every = 20
    config.train.start_from = config_dict.placeholder(str)  # a run folder, for two stages
    config.train.tensorboard = False
    variants = {"plain": _plain, "phantom": _phantom}
    return variants[arg](config) if arg else config


def _plain(config: ConfigDict) -> ConfigDict:
    """Trains as one does without privacy."""
    config.dp.enabled = False
    config.augment.flip = 0.5
    config.augment.rotation = 180.0
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
    config.dp.microbatch = 16
    config.train.steps = 40
    config.train.expected_batch_size = 64
    return config
