"""One volume (NIfTI, npy, npz or a folder of DICOM slices) to the bytes that are kept of it."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxfair.data import containers, decode, sizes
from jaxfair.data.geometry import to_patient
from jaxfair.data.nifti import read_nifti
from jaxfair.data.pixels import Job, open_stack, refusal
from jaxfair.data.series import read_series
from jaxfair.errors import InputError

__all__ = ["fitted", "read_values", "read_volume", "resampled"]

Spacing = tuple[float, ...] | None


def read_volume(job: Job) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Reads one volume to the bytes that are stored, or says why not; never raises InputError.

    In this order: values, resampling to `how.spacing` where that is given, the window, the
    middle cut out or padded with the lowest value to `how.shape`.

    Returns:
      (d, h, w, 1) uint8 and the header: sex_text and age_text of DICOM, syntax, remarks, and
      `affine` (4, 4) where it is known, from (w, h, d, 1) of what is stored to mm to the right,
      front and head; or None and {"reason": ...}.
    """
    how = job.how
    try:
        values, spacing, header = read_values(job.path, job.place)
        taken = values.shape
        if how.spacing is not None:
            values = resampled(
                values, _resampling(taken, spacing, how.spacing, job.path), how.spacing
            )
        if "affine" in header:
            placed = _placed(header["affine"], taken, values.shape, how.shape[:3])
            header |= {"affine": placed}
        low, high = how.window
        grey = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
        grey = fitted(grey, how.shape[:3])
        if grey.min() == grey.max():
            raise InputError(f"{job.path} shows nothing between {low:g} and {high:g}.")
        return np.round(255 * grey).astype(np.uint8)[..., None], header
    except InputError as error:
        return None, refusal(job, error)


def read_values(
    path: str | os.PathLike[str], place: int = -1
) -> tuple[np.ndarray, Spacing, dict[str, Any]]:
    """Reads a volume's values, rescaled by its header (Hounsfield units of CT).

    Axes of NIfTI and DICOM run to the patient's head, back and left, as slices are shown
    (`geometry.to_patient`). Those of an array are taken as they are.

    Args:
      path: a NIfTI, npy or npz (d, h, w) file of any name, or a folder of DICOM slices.
      place: place in a stack (n, d, h, w); -1 for a file with one volume.

    Returns:
      float32 (d, h, w); its spacing (d, h, w) in mm, or None; and the header, with its `affine`
      where it is known (`geometry.to_patient`).

    Raises:
      InputError: it cannot be read as one volume, or does not say how it lies.
    """
    path = pathlib.Path(path)
    with decode.noted() as remarks:
        values, spacing, header = _read(path, place)
    if values.ndim != 3 or values.size == 0:
        raise InputError(
            f"{path} holds an array of the shape {values.shape}; a volume is (d, h, w)."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds values that are not finite; replace the file.")
    return values, spacing, header | {"remarks": header.get("remarks", []) + remarks}


def resampled(values: np.ndarray, old: Sequence[float], new: Sequence[float]) -> np.ndarray:
    """Resamples (d, h, w) from one spacing to another: means when it shrinks, else linearly.

    >>> resampled(np.arange(8.0).reshape(1, 1, 8), (1, 1, 1), (1, 1, 2))
    array([[[0.5, 2.5, 4.5, 6.5]]], dtype=float32)
    """
    for axis, (mine, wanted) in enumerate(zip(old, new)):
        count = values.shape[axis]
        size = _cells(count, mine, wanted)
        sizes.check("the resampled volume", (*values.shape[:axis], size, *values.shape[axis + 1 :]))
        weights = decode.area_weights(count, size) if size <= count else _linear(count, size)
        values = np.moveaxis(np.tensordot(weights, values, (1, axis)), 0, axis)
    return values.astype(np.float32)


def fitted(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Cuts out the middle of (d, h, w), or pads it with 0, to `shape`."""
    for axis, wanted in enumerate(shape):
        have = values.shape[axis]
        start = max(0, (have - wanted) // 2)
        values = np.take(values, np.arange(start, start + min(have, wanted)), axis)
        before = (wanted - values.shape[axis]) // 2
        around = [(0, 0)] * 3
        around[axis] = (before, wanted - values.shape[axis] - before)
        values = np.pad(values, around)
    return values


def _placed(
    affine: np.ndarray, old: Sequence[int], new: Sequence[int], kept: Sequence[int]
) -> np.ndarray:
    """The affine after `resampled` from `old` (d, h, w) to `new`, and `fitted` to `kept`."""
    ratio = np.divide(old, new)
    start = [(have - want) // 2 if have > want else -((want - have) // 2)
             for have, want in zip(new, kept)]  # fmt: skip
    change = np.eye(4)
    change[:3, :3] = np.diag(ratio[::-1])
    change[:3, 3] = (ratio * start + ratio / 2 - 0.5)[::-1]  # middles of cells, not their edges
    return affine @ change


def _resampling(
    shape: tuple[int, ...], old: Spacing, new: tuple[float, ...], path: str
) -> tuple[float, ...]:
    """The spacing of a volume; InputError where resampling it would make it huge or nothing."""
    if old is None:
        raise InputError(
            f"{path} does not say the size of its voxels, so it cannot be resampled; save an "
            "array 'spacing' (d, h, w in mm) in an npz, or leave data.spacing out."
        )
    sizes.check(f"{path}, resampled to data.spacing,", map(_cells, shape, old, new))
    if any(n > 1 and n * mine < 0.5 * wanted for n, mine, wanted in zip(shape, old, new)):
        raise InputError(
            f"{path} has {shape} voxels of {tuple(f'{v:g}' for v in old)} mm, less than one voxel "
            f"of data.spacing {new}; look whether its unit is mm."
        )
    return old


def _cells(count: int, old: float, new: float) -> int:
    return max(1, round(count * old / new))


def _linear(old: int, new: int) -> np.ndarray:
    """(new, old) weights of linear interpolation between the middles of cells."""
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old))).astype(np.float32)


def _read(path: pathlib.Path, place: int) -> tuple[np.ndarray, Spacing, dict[str, Any]]:
    kind = "" if path.is_dir() else containers.kind_of(path)
    if kind in ("npy", "npz"):
        return _array(path, place, kind)
    if path.is_dir():
        values, affine, header = read_series(path)
    elif kind == "NIfTI":
        values, affine, header = read_nifti(path)
    else:
        raise containers.not_one_of(
            path, kind, "volume (NIfTI, npy or npz, whatever its name, or a folder of DICOM slices)"
        )
    values, affine, remarks = decode.guarded(
        lambda: to_patient(values, affine), path, "cannot be turned to head, back and left"
    )
    spacing = tuple(float(v) for v in np.linalg.norm(affine[:3, :3], axis=0)[::-1])
    return values, spacing, header | {"affine": affine, "remarks": header["remarks"] + remarks}


def _array(path: pathlib.Path, place: int, kind: str) -> tuple[np.ndarray, Spacing, dict[str, Any]]:
    stack = open_stack(str(path))
    chosen = stack if place < 0 else stack[place]
    sizes.check(path, chosen.shape)
    values = np.asarray(chosen)
    if values.dtype.kind not in "uif":
        raise InputError(f"{path} holds values of the type {values.dtype}; numbers are wanted.")
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    spacing: Spacing = None
    if kind == "npz":
        with np.load(path) as arrays:
            if "spacing" in arrays:
                spacing = tuple(float(v) for v in np.ravel(arrays["spacing"]))
                if len(spacing) != 3 or not all(0 < v < np.inf for v in spacing):
                    raise InputError(f"{path} has the spacing {spacing}; three sizes are wanted.")
    return values.astype(np.float32), spacing, {"syntax": "array"}
