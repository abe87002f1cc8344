"""Private multi-label classification on CheXpert with a ResNet9.

    python -m jaxfair.train --config configs/chexpert_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/chexpert_resnet.py:phantom
    python -m jaxfair.train --config configs/chexpert_resnet.py:phantom --config.dp.enabled=False

The model, optimiser, clip, batch and learning rate of "Private, fair and accurate" (Tayebi
Arasteh et al. 2024) at its top epsilon of 7.89, on the five labels of CheXpert's competition,
per patient. A label that the report leaves open is not asked (`data.uncertain`). Start from a
run on other data with `--config.train.start_from=RUN`.

`phantom` is the same experiment on drawn thoraxes in CheXpert's layout, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DP_CXR, DRAWN_GROUPS, experiment, variant


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "chexpert_resnet",
        data={
            "source": "chexpert",
            "image_size": 224,
            "resize": "stretch",  # DP_CXR; or "crop", which keeps the aspect
            "equalize": True,
            "labels": (
                "atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion",
            ),
            "uncertain": "ignore",  # or "zeros", "ones"
            "views": ("AP", "PA"),
            "split": "random",
            "public_size": 45_000,  # 70 % of 64,540 patients, rounded; fixes q and delta
        },
        **DP_CXR,
    )  # fmt: skip
    return variant(config, arg, phantom=DRAWN_GROUPS)
