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
passes; about ten minutes on one CPU core. The private run takes 120 steps of 256 expected
lesions, nine minutes. Both flip and turn the images, and end with a rate of zero. A linear head
on fixed features (configs/derm_probe.py) does better at this number of lesions; what was measured
stands in experiments/e03_dp_classifier.

`phantom` is the same network on drawn thoraxes.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_TABLE, HAM10000, RESNET9, experiment, variant

PLAIN = {  # as one trains without privacy
    "optim": {"ema_decay": 0.98},
    "dp": {"enabled": False},
    "train": {"steps": 780, "expected_batch_size": 64, "checkpoint_every": 130},
}
PHANTOM = {
    "data": DRAWN_TABLE,
    "augment": {"flip": 0.0, "quarter_turns": False},  # a thorax has a top and a left
    "dp": {"microbatch": 16, "tuning_runs": 1},
    "train": {"steps": 40, "expected_batch_size": 64},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "plain" or "phantom"."""
    config = experiment(
        "derm_resnet",
        data=HAM10000,
        method=RESNET9,
        augment={"flip": 0.5, "quarter_turns": True},
        optim={
            "name": "nadam",
            "learning_rate": 0.001,
            "average": "ema",  # post-processing: it costs no privacy
            "ema_decay": 0.9,
        },
        dp={
            "epsilon": 8.0,
            "l2_clip_norm": 1.0,
            "microbatch": 32,
            "tuning_runs": 5,  # settings compared on fold 0
        },
        train={"steps": 120, "expected_batch_size": 256, "checkpoint_every": 40},
    )
    steps = config.train.get_ref("steps") + 0  # follows it, and may be set without moving it
    config.optim.decay_steps = steps  # to a rate of zero at the end
    return variant(config, arg, plain=PLAIN, phantom=PHANTOM)
