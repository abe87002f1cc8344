"""One NIfTI file to its values and its affine in mm."""

import gzip
import pathlib
from io import IOBase
from typing import Any, cast

import numpy as np

from jaxfair.data import sizes
from jaxfair.data.containers import GZIP
from jaxfair.data.decode import guarded
from jaxfair.errors import InputError

__all__ = ["read_nifti"]

MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def read_nifti(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Reads a NIfTI-1 or NIfTI-2 file, gzipped or not, whatever its name.

    A slope that is 0 or NaN means that values are not scaled, as nibabel writes and reads it.

    Returns:
      float32 (i, j, k), scaled; the affine (4, 4) in mm, of the unit that the file names (mm
      where it names none, with a remark); and the header.

    Raises:
      InputError: it cannot be read, is no volume, is too large, or does not say how it lies.
    """
    with open(path, "rb") as plain:
        packed = plain.read(2) == GZIP
    with gzip.open(path) if packed else open(path, "rb") as file:
        return guarded(lambda: _read(cast(IOBase, file)), path, "cannot be read as NIfTI")


def _read(file: IOBase) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    import nibabel

    size = file.read(4)
    file.seek(0)
    newer = 540 in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
    image: Any = (nibabel.Nifti2Image if newer else nibabel.Nifti1Image).from_stream(file)
    _check(image)
    unit = image.header.get_xyzt_units()[0]
    values = np.asarray(image.dataobj, np.float32)
    remarks = ["the unit of its voxels is not said: read as mm"] if unit == "unknown" else []
    affine = np.diag([*[MILLIMETRES[unit]] * 3, 1]) @ image.affine
    return values.reshape(values.shape[:3]), affine, {"syntax": "NIfTI", "remarks": remarks}


def _check(image: Any) -> None:
    """Raises InputError for a header that makes no oriented volume of a size to read."""
    shape, header = image.shape, image.header
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or 0 in shape:
        raise InputError(f"it holds an array of the shape {shape}; a volume is (i, j, k).")
    sizes.check("it", shape)
    if image.get_data_dtype().kind not in "uif":
        raise InputError(f"its values are {image.get_data_dtype()}, and numbers are wanted.")
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        raise InputError(
            "it does not say how it lies in the patient (qform_code and sform_code are 0); where "
            "you know it, write it with nibabel: image.set_sform(affine, 1)."
        )
