"""Private fair embeddings of skin lesions: what an adversary can read of sex and age is unlearned.

    python -m jaxfair.train --config configs/derm_adversarial.py --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_adversarial.py:plain --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_adversarial.py:features --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_adversarial.py:phantom
    python -m jaxfair.train --config configs/derm_adversarial.py:phantom --config.dp.enabled=False

DIR (or the variable JAXFAIR_DATA) holds `metadata.csv` and `images_48_rgb.npz`: HAM10000 lesions
at 48 x 48 with sex and age (configs/derm_resnet.py). The unit of privacy is the lesion. Network and
training are those of configs/derm_resnet.py; heads and adversary those of
configs/chexpert_adversarial.py, where its baselines stand too.

`plain` trains without privacy, with the covariance of both embeddings over a batch and two steps
of the adversary to one of all else. `features` trains the heads alone, privately, on fixed features
that no patient shaped: seconds a run, and where privacy costs least (`--config.dp.enabled=False` is
its baseline). `phantom` is the private network on drawn thoraxes.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_TABLE, HAM10000, experiment, variant

ADVERSARIAL = {
    "name": "adversarial",
    "backbone": "resnet9",
    "activation": "mish",
    "orthogonality": "example",  # of each lesion by itself, which privacy allows
}
PLAIN = {
    "method": {"orthogonality": "batch"},
    "optim": {"ema_decay": 0.98, "every": 2, "parts": {"adversary": {"every": 1}}},
    "dp": {"enabled": False, "microbatch": 64},  # which the covariance sees at once
    "train": {"steps": 1_560, "expected_batch_size": 64, "checkpoint_every": 130},
}
FEATURES = {
    "method": {"backbone": "features"},
    "augment": {"flip": 0.0, "quarter_turns": False},  # the features are the same from all sides
    "dp": {"microbatch": 512},
    "train": {"steps": 200, "expected_batch_size": 1_024, "checkpoint_every": 100},
}
PHANTOM = {
    "data": DRAWN_TABLE,
    "augment": {"flip": 0.0, "quarter_turns": False},  # a thorax has a top and a left
    "dp": {"microbatch": 16},
    "train": {"steps": 40, "expected_batch_size": 64},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "plain", "features" or "phantom"."""
    config = experiment(
        "derm_adversarial",
        data={**HAM10000, "groups": ("sex", "age_group")},
        method=ADVERSARIAL,
        augment={"flip": 0.5, "quarter_turns": True},
        optim={
            "name": "nadam",
            "learning_rate": 0.001,
            "average": "ema",  # post-processing: it costs no privacy
            "ema_decay": 0.9,
        },
        dp={"epsilon": 8.0, "l2_clip_norm": 1.0, "microbatch": 32},
        train={"steps": 120, "expected_batch_size": 256, "checkpoint_every": 40},
    )
    config.optim.decay_steps = config.train.get_ref("steps")  # to a rate of zero at the end
    return variant(config, arg, plain=PLAIN, features=FEATURES, phantom=PHANTOM)
