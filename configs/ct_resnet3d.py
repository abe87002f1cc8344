"""A private classifier of CT volumes: is there a lesion? A 3D ResNet9.

    python -m jaxfair.train --config configs/ct_resnet3d.py --config.data.root=DIR
    python -m jaxfair.train --config configs/ct_resnet3d.py:phantom
    python -m jaxfair.train --config configs/ct_resnet3d.py:phantom --config.dp.enabled=False

The pancreas task of "Private, fair and accurate" (Tayebi Arasteh et al. 2024), whose private
code was never published: batch 64, clip 1, NAdam at 2e-4 and 50 epochs are our reading of it.
The volumes are a table of NIfTI files, npz stacks or DICOM folders.

`phantom` is the same experiment on the middle of drawn abdomens, a few minutes on two CPU
cores.
"""

from ml_collections import ConfigDict, config_dict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    if arg not in ("", "phantom"):
        raise ValueError(f"the variant {arg!r} does not exist; known are '' and 'phantom'.")
    config = ConfigDict()
    config.name = "ct_resnet3d"
    config.seed = 1

    config.data = ConfigDict()
    config.data.source = "volumes"
    config.data.root = config_dict.placeholder(str)  # else the variable JAXFAIR_DATA
    config.data.prepared = config_dict.placeholder(str)  # else beside the root
    config.data.table = ConfigDict()
    config.data.table.file = "table.csv"
    config.data.table.image = "image"
    config.data.table.patient = "patient"
    config.data.table.sex = "sex"
    config.data.table.age = "age"
    config.data.table.labels = ("lesion",)
    config.data.volume = (64, 128, 128)  # d, h, w
    config.data.spacing = (4.0, 2.0, 2.0)  # mm; resampled to this
    config.data.window = (-160.0, 240.0)  # Hounsfield units that become black and white
    config.data.split = "random"
    config.data.public_size = 1_000  # of 1,625 scans, rounded; fixes q and delta

    config.method = ConfigDict()
    config.method.name = "classifier"
    config.method.target = "multi-label"
    config.method.backbone = "resnet9"
    config.method.ndim = 3
    config.method.channels = 1
    config.method.activation = "mish"
    config.method.norm = "group"
    config.method.multiplicity = 1
    config.augment = ConfigDict()
    config.augment.flip = 0.0
    config.augment.rotation = 0.0
    config.augment.shift = 0.0
    config.augment.intensity = 0.0

    config.optim = ConfigDict()
    config.optim.name = "nadam"
    config.optim.learning_rate = 0.0002
    config.optim.average = "ema"  # post-processing: it costs no privacy
    config.optim.ema_decay = 0.99

    config.dp = ConfigDict()
    config.dp.enabled = True
    config.dp.epsilon = 8.0
    config.dp.l2_clip_norm = 1.0
    config.dp.delta = config_dict.placeholder(float)  # else min(1e-5, 0.1 / public_size)
    config.dp.unit = config_dict.placeholder(str)  # else the patient, where ids are known
    config.dp.clipping = "auto"
    config.dp.microbatch = 0  # sought once on made-up data, and kept in the run folder
    config.dp.tuning_runs = 1
    config.dp.insecure_seed = config_dict.placeholder(int)

    config.train = ConfigDict()
    config.train.steps = 800
    config.train.expected_batch_size = 64
    config.train.checkpoint_every = 50
    config.train.start_from = config_dict.placeholder(str)  # a run folder, for two stages
    config.train.tensorboard = False
    return _phantom(config) if arg == "phantom" else config


def _phantom(config: ConfigDict) -> ConfigDict:
    """Shrinks the experiment to the stand-in."""
    config.name = "ct_resnet3d_phantom"
    config.data.volume = (16, 24, 28)
    config.data.spacing = (6.25, 5.6, 5.6)
    config.data.public_size = 250
    config.data.phantom = ConfigDict({"n_images": 400, "seed": 0, "pixels": 64, "slices": 32})
    config.optim.learning_rate = 1e-3
    config.dp.microbatch = 8
    config.train.steps = 40
    config.train.expected_batch_size = 32
    config.train.checkpoint_every = 20
    return config
