"""Private multi-label classification on ChestX-ray14 by a linear head on fixed features.

    python -m jaxfair.train --config configs/cxr14_probe.py --config.data.root=DIR
    python -m jaxfair.train --config configs/cxr14_probe.py --config.method.weights=lite0
    python -m jaxfair.train --config configs/cxr14_probe.py:phantom
    python -m jaxfair.train --config configs/cxr14_probe.py:phantom --config.dp.enabled=False

The fourteen labels of ChestX-ray14, per patient, with the published split (its training patients
are split again for validation).

Features come from drawn images; `method.weights=lite0` joins those of an ImageNet network, which
come through pip (docs/weights.md). They are computed once, and every one of sixty steps uses all
patients (q = 1). `phantom` is the same probe on drawn thoraxes in ChestX-ray14's layout.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import film_probe

DATA = {
    "source": "cxr14",
    "image_size": 224,
    "resize": "stretch",  # or "crop", which keeps the aspect
    "split": "source",
    "public_size": 25_000,  # training patients, rounded; fixes q and delta
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    return film_probe("cxr14_probe", arg, DATA)
