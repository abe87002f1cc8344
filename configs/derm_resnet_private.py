"""Private classification of skin lesions by a ResNet9 and the recipe of De et al. 2022.

    python -m jaxfair.train --config configs/derm_resnet_private.py --config.data.root=DIR
    python -m jaxfair.train --config configs/derm_resnet_private.py:phantom

Data and network are those of configs/derm_resnet.py. What differs is what De et al. 2022 (arXiv
2204.13650) found to matter to a private network: standardised filters and norms without a learned
scale, four augmented views of a lesion averaged before the one clip (they take 16), large draws,
plain SGD at a constant rate that is stated for a clip of 1, an average of the parameters with a
warm-up, no dropout; and after Mehta et al. 2023 (arXiv 2205.02973) the head trained further at the
end, on the network as averaged, within the same budget.

The recipe has not been compared with configs/derm_resnet.py yet, as a whole or change by change:
experiments/e03_dp_classifier/README.md has the command.

`phantom` is the same on drawn thoraxes.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_TABLE, HAM10000, PRIVATE_RECIPE, RESNET9, experiment, variant

PHANTOM = {
    "data": DRAWN_TABLE,
    "augment": {"flip": 0.0, "quarter_turns": False, "shift": 0.05},  # a thorax has a top
    "method": {"multiplicity": 2},
    "dp": {"microbatch": 8, "tuning_runs": 1},
    "train": {"steps": 40, "expected_batch_size": 64},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "derm_resnet_private",
        data=HAM10000,
        method={**RESNET9, **PRIVATE_RECIPE["method"]},
        augment={"flip": 0.5, "quarter_turns": True},
        optim=PRIVATE_RECIPE["optim"],
        mitigation=PRIVATE_RECIPE["mitigation"],
        dp={
            "epsilon": 8.0,
            "l2_clip_norm": 1.0,
            "microbatch": 16,  # x 4 views are held at once: half a gigabyte
            "tuning_runs": 6,  # settings compared on fold 0, those of derm_resnet among them
        },
        train={"steps": 120, "expected_batch_size": 1024, "checkpoint_every": 12},
    )
    return variant(config, arg, phantom=PHANTOM)
