"""Private multi-label classification of any table of images by a linear head on fixed features.

    python -m jaxfair.train --config configs/table_probe.py --config.data.root=DIR
    python -m jaxfair.train --config configs/table_probe.py --config.method.weights=lite0
    python -m jaxfair.train --config configs/table_probe.py:phantom
    python -m jaxfair.train --config configs/table_probe.py:phantom --config.dp.enabled=False

Name the columns of your table in `data.table`. Where turning or flipping an image changes no label
(skin), set `method.symmetric=True`.

Features come from drawn images; `method.weights=lite0` joins those of an ImageNet network, which
come through pip (docs/weights.md). They are computed once, and every one of sixty steps uses all
patients (q = 1). `phantom` is the same probe on drawn thoraxes in the layout of such a table.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_COLUMNS, film_probe

DATA = {
    "source": "table",
    "table": {
        **DRAWN_COLUMNS,
        "labels": ("cardiomegaly", "pleural_effusion_right", "pleural_effusion_left"),
    },
    "image_size": 224,
    "resize": "stretch",  # or "crop", which keeps the aspect
    "split": "random",
    "public_size": 10_000,  # training patients, rounded by you; fixes q and delta
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    return film_probe("table_probe", arg, DATA)
