"""From a volume and its affine to axes that run to the patient's head, back and left."""

import math
from typing import Any

import numpy as np

from jaxfair.data import sizes
from jaxfair.errors import InputError

__all__ = ["to_patient"]

SKEW = 0.01
"""Cosine of two axes from which a volume is sheared (a tilted gantry) and not merely turned."""
OBLIQUE = 20.0
"""Degrees between an axis and the patient's nearest one from which a volume is resampled."""


def to_patient(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Turns a volume by nibabel's orientation functions, and resamples one that lies askew.

    Axes that are orthogonal and within `OBLIQUE` degrees of the patient's are only exchanged
    and flipped; any other volume is resampled linearly to the patient's axes, with its lowest
    value around it.

    Args:
      values: (i, j, k).
      affine: (4, 4), from (i, j, k, 1) to mm to the right, the front and the head (RAS+, as
        nibabel has it).

    Returns:
      (d, h, w), whose axes run to head, back and left; its affine (4, 4), from (w, h, d, 1) to
      mm as above; remarks.

    Raises:
      InputError: the affine is not finite or singular, or the volume would be too large.
    """
    from nibabel import orientations

    axes = affine[:3, :3] / _checked_edges(affine)
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
    turn = orientations.ornt_transform(found, wanted)
    turned = orientations.apply_orientation(values, turn)
    return turned.T, affine @ orientations.inv_ornt_aff(turn, values.shape), remarks


def _checked_edges(affine: np.ndarray) -> np.ndarray:
    """(3,) lengths of a voxel's edges."""
    edges = np.sqrt((affine[:3, :3] ** 2).sum(0))
    finite = np.isfinite(affine).all() and edges.all()
    if not finite or abs(np.linalg.det(affine[:3, :3] / edges)) < 0.1:
        raise InputError(
            "its geometry is not finite, or its axes lie in one plane; mend its header."
        )
    return edges


def _resampled_to_axes(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import nibabel
    from nibabel import affines, orientations, processing, spaces

    nearest = orientations.io_orientation(affine)[:, 0].astype(int)
    edges = np.empty(3)
    edges[nearest] = affines.voxel_sizes(affine)
    target: Any = spaces.vox2out_vox((values.shape, affine), edges)
    sizes.check("resampled to the axes of the patient, it", target[0])
    image = nibabel.Nifti1Image(np.asarray(values, np.float32), affine)
    made = processing.resample_from_to(image, target, order=1, cval=float(values.min()))
    return np.asarray(made.dataobj, np.float32), np.asarray(made.affine)
