"""First weights of a ResNet9 for private classifiers, learned on drawn images alone.

    python -m jaxfair.pretrain --config configs/pretrain_drawn.py --out drawn.safetensors
    python -m jaxfair.pretrain --config configs/pretrain_drawn.py:volumes --out volumes.safetensors
    python -m jaxfair.pretrain --config configs/pretrain_drawn.py:quick --out drawn.safetensors

More steps and larger batches by the same command on a GPU; how long it takes is not measured.
`volumes` is its three-dimensional form, `quick` a few steps that show the walk.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "volumes", "quick")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the pretraining; `arg` is one of VARIANTS."""
    if arg not in VARIANTS:
        raise ValueError(f"the variant {arg!r} does not exist; known are {VARIANTS}.")
    config = ConfigDict()
    config.name = "pretrain_drawn"
    config.seed = 1
    config.images = 1_000_000
    config.network = ConfigDict({"backbone": "resnet9", "activation": "mish", "pixels": 48})
    config.optim = ConfigDict({"name": "adam", "learning_rate": 1e-3, "decay_steps": 6_000})
    config.train = ConfigDict({"steps": 6_000, "expected_batch_size": 128, "checkpoint_every": 200})
    if arg == "volumes":
        config.name = "pretrain_volumes"
        config.network.update({"ndim": 3, "channels": 1, "pixels": 24})
    if arg == "quick":
        config.images = 64
        config.network.update({"pixels": 16})
        config.optim.decay_steps = 4
        config.train.update({"steps": 4, "expected_batch_size": 8, "checkpoint_every": 2})
    return config
