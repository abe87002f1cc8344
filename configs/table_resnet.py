"""Private multi-label classification of any table of images with a ResNet9.

    python -m jaxfair.train --config configs/table_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/table_resnet.py:phantom
    python -m jaxfair.train --config configs/table_resnet.py:phantom --config.dp.enabled=False

The model, optimiser, clip, batch and learning rate of "Private, fair and accurate" (Tayebi
Arasteh et al. 2024) at its top epsilon of 7.89. Name the columns of your table in
`data.table`; here they are DP_CXR's eight labels, right and left apart, so that a flip would
swap them.

`phantom` is the same experiment on drawn thoraxes in the layout of such a table, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DP_CXR, DRAWN_COLUMNS, DRAWN_GROUPS, experiment, variant

LABELS = (
    "cardiomegaly",
    "congestion",
    "pleural_effusion_right",
    "pleural_effusion_left",
    "pneumonic_infiltrates_right",
    "pneumonic_infiltrates_left",
    "atelectasis_right",
    "atelectasis_left",
)


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "table_resnet",
        data={
            "source": "table",
            "table": {**DRAWN_COLUMNS, "labels": LABELS},
            "image_size": 224,
            "resize": "stretch",  # DP_CXR; or "crop", which keeps the aspect
            "equalize": True,
            "split": "random",
            "public_size": 10_000,  # training patients, rounded by you; fixes q and delta
        },
        **DP_CXR,
    )
    return variant(config, arg, phantom=DRAWN_GROUPS)
