"""Private multi-label classification on ChestX-ray14 with a ResNet9.

    python -m jaxfair.train --config configs/cxr14_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/cxr14_resnet.py:phantom
    python -m jaxfair.train --config configs/cxr14_resnet.py:phantom --config.dp.enabled=False

The model, optimiser, clip, batch and learning rate of "Private, fair and accurate" (Tayebi
Arasteh et al. 2024) at its top epsilon of 7.89, on the fourteen labels of ChestX-ray14, per
patient, with the published split (`data.split="source"`; its training patients are split
again for validation).

`phantom` is the same experiment on drawn thoraxes in ChestX-ray14's layout, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DP_CXR, DRAWN_FILMS, experiment, variant


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "cxr14_resnet",
        data={
            "source": "cxr14",
            "image_size": 224,
            "resize": "stretch",  # DP_CXR; or "crop", which keeps the aspect
            "equalize": True,
            "split": "source",
            "public_size": 25_000,  # training patients, rounded; fixes q and delta
        },
        **DP_CXR,
    )
    return variant(config, arg, phantom=DRAWN_FILMS)
