"""A private classifier of CT volumes by their slices: 2.5D attention over a ResNet-18.

    python -m jaxfair.train --config configs/ct_slices.py --config.data.root=DIR
    python -m jaxfair.train --config configs/ct_slices.py:phantom
    python -m jaxfair.train --config configs/ct_slices.py:phantom --config.dp.enabled=False

The pancreas model of "Private, fair and accurate" (TUM-AIMED/2.5DAttention; 12,227,652
parameters): every slice of all three orientations through one network, then attention.
BatchNorm is GroupNorm here, and the step is private. `--config.method.weights=FILE` begins
with public weights of the backbone.

`phantom` is the same experiment on the middle of drawn abdomens, six steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_SCANS, PANCREAS_CT, experiment, variant


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    network = {"name": "classifier", "backbone": "slices", "ndim": 3, "channels": 1}
    config = experiment("ct_slices", method=network, **PANCREAS_CT)
    drawn = {
        **DRAWN_SCANS["data"],
        "public_size": 75,
        "phantom": {"n_images": 120, "seed": 0, "pixels": 64, "slices": 32},
    }
    few = {"steps": 6, "expected_batch_size": 8, "checkpoint_every": 3}
    phantom = {**DRAWN_SCANS, "data": drawn, "dp": {"microbatch": 2}, "train": few}
    return variant(config, arg, phantom=phantom)
