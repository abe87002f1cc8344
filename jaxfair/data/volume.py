"""One volume (NIfTI, npy, npz or a folder of DICOM slices) to the bytes that are kept of it."""

import os
import pathlib
from typing import Any

import numpy as np
import pydicom

from jaxfair.data import decode, sizes
from jaxfair.data.decoders import declared_shape
from jaxfair.data.pixels import Job, open_stack, refusal
from jaxfair.errors import InputError

__all__ = ["fitted", "read_values", "read_volume", "resampled"]

Spacing = tuple[float, ...] | None


def read_volume(job: Job) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Reads one volume to the bytes that are stored, or says why not; never raises InputError.

    In this order: values, resampling to `how.spacing` where that is given, the window, the
    middle cut out or padded with the lowest value to `how.shape`.

    Returns:
      (d, h, w, 1) uint8 and the header: sex_text and age_text of DICOM, syntax, remarks; or
      None and {"reason": ...}.
    """
    how = job.how
    try:
        values, spacing, header = read_values(job.path, job.place)
        if how.spacing is not None:
            if spacing is None:
                raise InputError(
                    f"{job.path} does not say the size of its voxels, so it cannot be resampled; "
                    "save an array 'spacing' (d, h, w in mm) in an npz, or leave data.spacing out."
                )
            values = resampled(values, spacing, how.spacing)
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

    Axes of NIfTI and DICOM run to the patient's head, back and left, as slices are shown. Those
    of an array are taken as they are.

    Args:
      path: .nii, .nii.gz, .npy or .npz (d, h, w), or a folder of DICOM slices.
      place: place in a stack (n, d, h, w); -1 for a file with one volume.

    Returns:
      float32 (d, h, w); its spacing (d, h, w) in mm, or None; and the header.

    Raises:
      InputError: it cannot be read as one volume.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        values, spacing, header = _dicom_series(path)
    elif path.name.endswith((".nii", ".nii.gz")):
        values, spacing, header = _nifti(path)
    elif path.suffix in (".npy", ".npz"):
        values, spacing, header = _array(path, place)
    else:
        raise InputError(f"{path} is no volume: .nii, .nii.gz, .npy, .npz or a folder is expected.")
    if values.ndim != 3 or values.size == 0:
        raise InputError(
            f"{path} holds an array of the shape {values.shape}; a volume is (d, h, w)."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{path} holds values that are not finite; replace the file.")
    return values, spacing, {"remarks": []} | header


def resampled(values: np.ndarray, old: tuple[float, ...], new: tuple[float, ...]) -> np.ndarray:
    """Resamples (d, h, w) from one spacing to another: means when it shrinks, else linearly.

    >>> resampled(np.arange(8.0).reshape(1, 1, 8), (1, 1, 1), (1, 1, 2))
    array([[[0.5, 2.5, 4.5, 6.5]]], dtype=float32)
    """
    for axis, (mine, wanted) in enumerate(zip(old, new)):
        count = values.shape[axis]
        size = max(1, round(count * mine / wanted))
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


def _linear(old: int, new: int) -> np.ndarray:
    """(new, old) weights of linear interpolation between the middles of cells."""
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old))).astype(np.float32)


def _nifti(path: pathlib.Path) -> tuple[np.ndarray, Spacing, dict[str, Any]]:
    import nibabel

    try:
        image: Any = nibabel.load(path)
        sizes.check(path, image.shape)
        turn = nibabel.orientations.ornt_transform(
            nibabel.orientations.io_orientation(image.affine),
            nibabel.orientations.axcodes2ornt(("L", "P", "S")),
        )
        image = image.as_reoriented(turn)
        values = np.asarray(image.dataobj, np.float32)
        spacing = tuple(float(v) for v in image.header.get_zooms()[:3][::-1])
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} is no NIfTI file that can be read ({_short(error)}).") from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    return values.T, spacing, {"syntax": "NIfTI"}


def _array(path: pathlib.Path, place: int) -> tuple[np.ndarray, Spacing, dict[str, Any]]:
    stack = open_stack(str(path))
    chosen = stack if place < 0 else stack[place]
    sizes.check(path, chosen.shape)
    values = np.asarray(chosen)
    if values.dtype.kind not in "uif":
        raise InputError(f"{path} holds values of the type {values.dtype}; numbers are wanted.")
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    spacing: Spacing = None
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            if "spacing" in arrays:
                spacing = tuple(float(v) for v in np.ravel(arrays["spacing"]))
                if len(spacing) != 3 or min(spacing) <= 0:
                    raise InputError(f"{path} has the spacing {spacing}; three sizes are wanted.")
    return values.astype(np.float32), spacing, {"syntax": "array"}


def _dicom_series(folder: pathlib.Path) -> tuple[np.ndarray, Spacing, dict[str, Any]]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if not files:
        raise InputError(f"{folder} is an empty folder; a series of DICOM slices is expected.")
    sizes.check_bytes(folder, sum(path.stat().st_size for path in files), "files")
    slices = [decode.read_dicom(path) for path in files]
    sizes.check(folder, (len(slices), *declared_shape(slices[0])))
    series = {str(s.get("SeriesInstanceUID", "")) for s in slices}
    if len(series) > 1:
        raise InputError(f"{folder} holds slices of {len(series)} series; keep one of them.")
    heights = _heights(slices, folder)
    order = np.argsort(heights)
    planes = []
    for i in order:
        stored = decode.raw_pixels(slices[i], files[i]).astype(np.float32)
        slope, start = (slices[i].get(n) for n in ("RescaleSlope", "RescaleIntercept"))
        planes.append(stored * float(1 if slope is None else slope) + float(start or 0))
        slices[i].PixelData = b""  # its bytes are not needed again
    if len({plane.shape for plane in planes}) > 1:
        raise InputError(f"{folder} holds slices of different shapes; keep one series of them.")
    pixel = slices[0].get("PixelSpacing")
    spacing = None
    if pixel is not None:
        spacing = (_gap(heights[order], slices[0], folder), float(pixel[0]), float(pixel[1]))
    header = decode.header_texts(slices[0])
    return np.stack(planes), spacing, header | {"syntax": "DICOM series"}


def _heights(slices: list[pydicom.Dataset], folder: pathlib.Path) -> np.ndarray:
    """(d,) place of each slice in mm along the normal of the slices."""
    try:
        x, y = np.reshape([float(v) for v in slices[0].ImageOrientationPatient], (2, 3))
        normal = np.cross(x, y)
        return np.array([normal @ [float(v) for v in s.ImagePositionPatient] for s in slices])
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder} holds a slice that does not say where it lies (ImagePositionPatient, "
            "ImageOrientationPatient); replace the series."
        ) from error


def _gap(heights: np.ndarray, first: pydicom.Dataset, folder: pathlib.Path) -> float:
    """Distance of neighbouring slices in mm; refuses a series with holes or copies."""
    if len(heights) == 1:
        return float(first.get("SliceThickness") or 1)
    gaps = np.diff(heights)
    if gaps.min() <= 0 or gaps.max() > 1.5 * np.median(gaps):
        raise InputError(
            f"{folder} has slices {gaps.min():.2f} to {gaps.max():.2f} mm apart; one is missing "
            "or there twice."
        )
    return float(np.median(gaps))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
