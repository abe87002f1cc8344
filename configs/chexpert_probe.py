"""Private multi-label classification on CheXpert by a linear head on fixed features.

    python -m jaxfair.train --config configs/chexpert_probe.py --config.data.root=DIR
    python -m jaxfair.train --config configs/chexpert_probe.py --config.method.weights=lite0
    python -m jaxfair.train --config configs/chexpert_probe.py:phantom
    python -m jaxfair.train --config configs/chexpert_probe.py:phantom --config.dp.enabled=False

The five labels of CheXpert's competition, per patient. A label that the report leaves open is not
asked (`data.uncertain`).

Features come from drawn images; `method.weights=lite0` joins those of an ImageNet network, which
come through pip (docs/weights.md). They are computed once, and every one of sixty steps uses all
patients (q = 1). `phantom` is the same probe on drawn thoraxes in CheXpert's layout.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import film_probe

DATA = {
    "source": "chexpert",
    "image_size": 224,
    "resize": "stretch",  # or "crop", which keeps the aspect
    "labels": ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion"),
    "uncertain": "ignore",  # or "zeros", "ones"
    "views": ("AP", "PA"),
    "split": "random",
    "public_size": 45_000,  # 70 % of 64,540 patients, rounded; fixes q and delta
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    return film_probe("chexpert_probe", arg, DATA)
