"""Private classification of skin lesions, malignant or not, by a linear head on fixed features.

    python -m jaxfair.train --config configs/derm_probe.py --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_probe.py --config.dp.epsilon=1
    python -m jaxfair.train --config configs/derm_probe.py --config.method.weights=lite0
    python -m jaxfair.train --config configs/derm_probe.py:phantom
    python -m jaxfair.train --config configs/derm_probe.py:phantom --config.dp.enabled=False

DIR (or the variable JAXFAIR_DATA) holds `metadata.csv` and `images_48_rgb.npz`: HAM10000 lesions
at 48 x 48 with sex and age, one image per lesion (Tschandl et al. 2018, CC BY-NC-SA 4.0). The
unit of privacy is the lesion: the table names no patients.

Every step uses all lesions (q = 1): sixty noisy full-batch steps of which the last fifteen are
averaged. The learning rate follows epsilon, since less noise allows longer strides. Half a minute
on two CPU cores; `data.fold` 0 to 4 chooses which fifth tests. See
experiments/e03_dp_classifier for the AUROC at each epsilon. `method.weights=lite0` joins features
of an ImageNet network, which come through pip (docs/weights.md).

`phantom` is the same probe on drawn thoraxes, which have a top and a left.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_TABLE, HAM10000, experiment, variant

PHANTOM = {
    "data": DRAWN_TABLE,
    "method": {"symmetric": False},  # a thorax has a top and a left
    "dp": {"microbatch": 128, "tuning_runs": 1},
    "train": {"expected_batch_size": 500},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "derm_probe",
        data=HAM10000,
        method={"name": "linear_probe"},
        optim={
            "name": "sgd",
            "learning_rate": 0.0,  # set below
            "momentum": 0.9,
            "average": "late",
            "average_from": 45,
        },
        dp={
            "epsilon": 8.0,
            "l2_clip_norm": 1.0,
            "microbatch": 512,
            "tuning_runs": 198,  # feature sets and settings compared on these lesions, or simulated
        },
        train={"steps": 60, "expected_batch_size": 4_200, "checkpoint_every": 60},
    )
    config.optim.learning_rate = 2.0 * config.dp.get_ref("epsilon")  # follows --config.dp.epsilon
    return variant(config, arg, phantom=PHANTOM)
