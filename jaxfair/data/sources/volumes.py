"""Any CSV of volumes: the options of `table`, with NIfTI, arrays or DICOM series as images."""

import os
from typing import Any

from jaxfair.data import volume
from jaxfair.data.sources import table
from jaxfair.data.sources.base import SourceTable

__all__ = ["HOW_TO_GET", "OPTIONS", "SPEC", "inventory", "label", "read_pixels", "read_table"]

SPEC: dict[str, Any] = table.SPEC | {
    "name": "volumes",
    "title": "a table of volumes",
    "population": "volumes",
    "attributes": ("sex", "age_group"),
    "ndim": 3,
    "channels": (1,),
    "config": "configs/ct_resnet3d.py",
}

HOW_TO_GET = table.HOW_TO_GET.replace("images", "volumes")

inventory = table.inventory
label = table.label
OPTIONS = table.TableOptions
read_pixels = volume.read_volume


def read_table(root: str | os.PathLike[str], options: table.TableOptions) -> SourceTable:
    """Reads the CSV as `table.read_table` does; a path may lead to a folder of DICOM slices.

    Raises:
      InputError: as `table.read_table`.
    """
    return table.read_table(root, options)
