"""Private multi-label classification on CheXpert with a ResNet9.

    python -m jaxfair.train --config configs/chexpert_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/chexpert_resnet.py:phantom
    python -m jaxfair.train --config configs/chexpert_resnet.py:phantom --config.dp.enabled=False

The model, optimiser, clip, batch and learning rate of "Private, fair and accurate" (Tayebi
Arasteh et al. 2024) at its top epsilon of 7.89, on the five labels of CheXpert's competition,
per patient. A label that the report leaves open is not asked (`data.uncertain`). Start from a
run on other data with `--config.train.start_from=RUN`.

`phantom` is the same experiment on drawn thoraxes in CheXpert's layout, a few minutes on two
CPU cores; forty private steps show the way and teach the network little.
"""

from ml_collections import ConfigDict, config_dict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    if arg not in ("", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '' and 'phantom'.")
    config = ConfigDict()
    config.name = "chexpert_resnet"
    config.seed = 1

    config.data = ConfigDict()
    config.data.source = "chexpert"
    config.data.root = config_dict.placeholder(str)  # else the variable JAXFAIR_DATA
    config.data.prepared = config_dict.placeholder(str)  # else beside the root
    config.data.image_size = 224
    config.data.resize = "stretch"  # DP_CXR; or "crop", which keeps the aspect
    config.data.equalize = True
    config.data.labels = (
        "atelectasis",
        "cardiomegaly",
        "consolidation",
        "edema",
        "pleural_effusion",
    )
    config.data.uncertain = "ignore"
    config.data.views = ("AP", "PA")
    config.data.split = "random"
    config.data.public_size = 45_000  # 70 % of 64,540 patients, rounded; fixes q and delta

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
    config.augment.flip = 0.0  # DP_CXR trains its private model without
    config.augment.rotation = 0.0
    config.augment.shift = 0.0
    config.augment.intensity = 0.0

    config.optim = ConfigDict()
    config.optim.name = "nadam"
    config.optim.learning_rate = 0.0005
    config.optim.average = "ema"  # post-processing: it costs no privacy
    config.optim.ema_decay = 0.99

    config.dp = ConfigDict()
    config.dp.enabled = True
    config.dp.epsilon = 7.89
    config.dp.l2_clip_norm = 1.5
    config.dp.delta = config_dict.placeholder(float)  # else min(1e-5, 0.1 / public_size)
    config.dp.unit = config_dict.placeholder(str)  # else the patient, where ids are known
    config.dp.clipping = "auto"
    config.dp.microbatch = 0  # sought once on made-up data, and kept in the run folder
    config.dp.tuning_runs = 1
    config.dp.insecure_seed = config_dict.placeholder(int)

    config.train = ConfigDict()
    config.train.steps = 20_000
    config.train.expected_batch_size = 128
    config.train.checkpoint_every = 500
    config.train.start_from = config_dict.placeholder(str)  # a run folder, for two stages
    config.train.tensorboard = False
    return _phantom(config) if arg == "phantom" else config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Shrinks the experiment to the stand-in."""
    config.name = "chexpert_resnet_phantom"
    config.data.image_size = 64
    config.data.public_size = 500
    config.data.phantom = ConfigDict({"n_images": 1_200, "seed": 0, "pixels": 96})
    config.optim.learning_rate = 1e-3
    config.dp.microbatch = 16
    config.train.steps = 40
    config.train.expected_batch_size = 64
    config.train.checkpoint_every = 20
    return config
