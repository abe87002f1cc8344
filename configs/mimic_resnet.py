"""Private multi-label classification on MIMIC-CXR with a ResNet9.

    python -m jaxfair.train --config configs/mimic_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/mimic_resnet.py:phantom
    python -m jaxfair.train --config configs/mimic_resnet.py:phantom --config.dp.enabled=False

The model, optimiser, clip, batch and learning rate of "Private, fair and accurate" (Tayebi
Arasteh et al. 2024) at its top epsilon of 7.89. DP_CXR pretrains on MIMIC-CXR without privacy
(`--config.dp.enabled=False`); here that stage is private too, and another run may start from
it with `--config.train.start_from=RUN`: two stages, one ledger.

`phantom` is the same experiment on drawn thoraxes in MIMIC-CXR's layout, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DP_CXR, DRAWN_FILMS, experiment, variant


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "mimic_resnet",
        data={
            "source": "mimic_cxr",
            "image_size": 224,
            "resize": "stretch",  # DP_CXR; or "crop", which keeps the aspect
            "equalize": True,
            "labels": (
                "atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion",
                "pneumonia",
            ),
            "uncertain": "zeros",  # DP_CXR
            "views": ("AP", "PA"),
            "split": "source",
            "public_size": 60_000,  # training patients, rounded; fixes q and delta
        },
        **DP_CXR,
    )  # fmt: skip
    return variant(config, arg, phantom=DRAWN_FILMS)
