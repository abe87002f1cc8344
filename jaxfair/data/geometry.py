"""From a volume and its affine to axes that run to the patient's head, back and left."""

import math
from typing import Any

import numpy as np

from jaxfair.errors import InputError

__all__ = ["MOST_VOXELS", "check_size", "to_patient"]

MOST_VOXELS = 2**29
"""No volume may have more, as a file or after resampling: 2 GiB of float32."""
LONGEST = 2**13
SKEW = 0.01
"""Cosine of two axes from which a volume is sheared (a tilted gantry) and not merely turned."""
OBLIQUE = 20.0
"""Degrees between an axis and the patient's nearest one from which a volume is resampled."""


def to_patient(
    values: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, tuple[float, ...], list[str]]:
    """Turns a volume by nibabel's orientation functions, and resamples one that lies askew.

    Axes that are orthogonal and within `OBLIQUE` degrees of the patient's are only exchanged
    and flipped; any other volume is resampled linearly to the patient's axes, with its lowest
    value around it.

    Args:
      values: (i, j, k).
      affine: (4, 4), from (i, j, k, 1) to mm to the right, the front and the head (RAS+, as
        nibabel has it).

    Returns:
      (d, h, w), whose axes run to head, back and left; its spacing (d, h, w) in mm; remarks.

    Raises:
      InputError: the affine is not finite or singular, or the volume would be too large.
    """
    from nibabel import affines, orientations

    sizes = _checked_sizes(affine)
    axes = affine[:3, :3] / sizes
    skew = np.abs(axes.T @ axes - np.eye(3)).max()
    angle = math.degrees(math.acos(min(1.0, np.abs(axes).max(0).min())))
    remarks: list[str] = []
    if skew > SKEW or angle > OBLIQUE:
        values, affine = _resampled_to_axes(values, affine)
        remarks.append("lay askew: resampled to the axes of the patient")
    elif angle > 1:
        remarks.append(f"oblique by up to {OBLIQUE:g} degrees: the nearest axes are used")
    found = orientations.io_orientation(affine)
    wanted = orientations.axcodes2ornt(("L", "P", "S"))
    turned = orientations.apply_orientation(values, orientations.ornt_transform(found, wanted))
    spacing = np.empty(3)
    spacing[found[:, 0].astype(int)] = affines.voxel_sizes(affine)
    return turned.T, tuple(float(v) for v in spacing[::-1]), remarks


def check_size(shape: tuple[int, ...], what: str) -> None:
    """Raises InputError for a volume that is too large, before memory is taken for it."""
    if math.prod(shape) > MOST_VOXELS or max(shape) > LONGEST:
        size = " x ".join(str(n) for n in shape)
        raise InputError(
            f"{what} would have {size} voxels; at most {MOST_VOXELS:,} and {LONGEST:,} along an "
            "axis are read. Look whether the unit of its voxels (mm) and data.spacing are right."
        )


def _checked_sizes(affine: np.ndarray) -> np.ndarray:
    """(3,) lengths of a voxel's edges."""
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(0))
    finite = np.isfinite(affine).all() and sizes.all()
    if not finite or abs(np.linalg.det(affine[:3, :3] / sizes)) < 0.1:
        raise InputError(
            "its geometry is not finite, or its axes lie in one plane; mend its header."
        )
    return sizes


def _resampled_to_axes(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import nibabel
    from nibabel import affines, orientations, processing, spaces

    nearest = orientations.io_orientation(affine)[:, 0].astype(int)
    sizes = np.empty(3)
    sizes[nearest] = affines.voxel_sizes(affine)
    target: Any = spaces.vox2out_vox((values.shape, affine), sizes)
    check_size(tuple(int(n) for n in target[0]), "A volume that lies askew, resampled,")
    image = nibabel.Nifti1Image(np.asarray(values, np.float32), affine)
    made = processing.resample_from_to(image, target, order=1, cval=float(values.min()))
    return np.asarray(made.dataobj, np.float32), np.asarray(made.affine)
