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

from ml_collections import ConfigDict, config_dict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    if arg not in ("", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '' and 'phantom'.")
    config = ConfigDict()
    config.name = "derm_probe"
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

    config.dp = ConfigDict()
    config.dp.enabled = True
    config.dp.epsilon = 8.0
    config.dp.l2_clip_norm = 1.0
    config.dp.delta = config_dict.placeholder(float)  # else min(1e-5, 0.1 / public_size)
    config.dp.unit = config_dict.placeholder(str)  # else the lesion
    config.dp.clipping = "auto"
    config.dp.microbatch = 512
    config.dp.tuning_runs = 190  # feature sets and settings compared on these lesions, simulated
    config.dp.insecure_seed = config_dict.placeholder(int)

    config.method = ConfigDict()
    config.method.name = "linear_probe"
    config.method.target = "multi-label"
    config.method.size = 48
    config.method.patterns = 48
    config.method.colours = 64
    config.method.symmetric = True
    config.method.feature_seed = 0

    config.optim = ConfigDict()
    config.optim.name = "sgd"
    config.optim.learning_rate = 2.0 * config.dp.get_ref("epsilon")  # follows --config.dp.epsilon
    config.optim.momentum = 0.9
    config.optim.average = "late"
    config.optim.average_from = 45

    config.train = ConfigDict()
    config.train.steps = 60
    config.train.expected_batch_size = 4_200
    config.train.checkpoint_every = 60
    config.train.start_from = config_dict.placeholder(str)  # a run folder, for two stages
    config.train.tensorboard = False
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
