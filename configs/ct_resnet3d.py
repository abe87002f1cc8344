"""A private classifier of CT volumes: is there a lesion? A 3D ResNet9.

    python -m jaxfair.train --config configs/ct_resnet3d.py --config.data.root=DIR
    python -m jaxfair.train --config configs/ct_resnet3d.py:phantom
    python -m jaxfair.train --config configs/ct_resnet3d.py:phantom --config.dp.enabled=False

The pancreas task of "Private, fair and accurate" (Tayebi Arasteh et al. 2024), whose private
code was never published: batch 64, clip 1, NAdam at 2e-4 and 50 epochs are our reading of it.
The volumes are a table of NIfTI files, npz stacks or DICOM folders.

`phantom` is the same experiment on the middle of drawn abdomens, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_SCANS, PANCREAS_CT, RESNET9, experiment, variant


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    network = {**RESNET9, "ndim": 3, "channels": 1}
    config = experiment("ct_resnet3d", method=network, **PANCREAS_CT)
    return variant(config, arg, phantom=DRAWN_SCANS)
