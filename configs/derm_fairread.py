"""Private FairREAD on skin lesions: an embedding free of sex and age, which are then re-fused.

    python -m jaxfair.train --config configs/derm_fairread.py --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_fairread.py:plain --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_fairread.py:features --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_fairread.py:phantom
    python -m jaxfair.train --config configs/derm_fairread.py:phantom --config.dp.enabled=False

DIR (or the variable JAXFAIR_DATA) holds `metadata.csv` and `images_48_rgb.npz`: HAM10000 lesions
at 48 x 48 with sex and age (configs/derm_resnet.py). The unit of privacy is the lesion. The network
is the ResNet9 of configs/derm_resnet.py; its four stages share one ledger, as in
configs/chexpert_fairread.py, where the arms and FCRO alone stand too.

`plain` trains without privacy, with the published row loss. `features` trains all but the filters,
privately, on fixed features that no patient shaped: where privacy costs least
(`--config.dp.enabled=False` is its baseline). `phantom` is the private network on drawn thoraxes.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_TABLE, HAM10000, experiment, variant

FAIRREAD = {
    "name": "fairread",
    "backbone": "resnet9",
    "activation": "mish",
    "row_weight": 0.0,  # it reads other lesions of a batch
}
PLAIN = {
    "method": {"row_weight": 500.0},
    "optim": {"ema_decay": 0.98},
    "dp": {"enabled": False, "microbatch": 64},
    "train": {"steps": 2_400, "expected_batch_size": 64, "checkpoint_every": 120},
}
FEATURES = {
    "method": {"backbone": "features"},
    "augment": {"flip": 0.0, "quarter_turns": False},  # the features are the same from all sides
    "dp": {"microbatch": 512},
    "train": {"steps": 400, "expected_batch_size": 1_024, "checkpoint_every": 100},
}
PHANTOM = {
    "data": DRAWN_TABLE,
    "augment": {"flip": 0.0, "quarter_turns": False},  # a thorax has a top and a left
    "dp": {"microbatch": 16},
    "train": {"steps": 80, "expected_batch_size": 64, "checkpoint_every": 20},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "plain", "features" or "phantom"."""
    config = experiment(
        "derm_fairread",
        data={**HAM10000, "groups": ("sex", "age_group")},
        method=FAIRREAD,
        augment={"flip": 0.5, "quarter_turns": True},
        optim={
            "name": "nadam",
            "learning_rate": 0.001,
            "average": "ema",  # post-processing: it costs no privacy
            "ema_decay": 0.9,
        },
        dp={"epsilon": 8.0, "l2_clip_norm": 1.0, "microbatch": 32},
        train={"steps": 240, "expected_batch_size": 256, "checkpoint_every": 40},
    )
    return variant(config, arg, plain=PLAIN, features=FEATURES, phantom=PHANTOM)
