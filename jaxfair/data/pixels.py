"""One file, whatever its format, to the bytes that a prepared set keeps of it."""

import functools
import math
import os
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data import containers, decode, greys, sizes
from jaxfair.data.raster import read_raster
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

__all__ = ["Job", "equalized", "open_stack", "read_picture", "read_square", "refusal"]


class Job(NamedTuple):
    """One file (or, with `place`, one image of a stack) and what is to be kept of it."""

    path: str
    how: Stored
    place: int = -1


def read_square(job: Job) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Reads one image to the pixels that are stored, or says why not; never raises InputError.

    Returns:
      (h, w, c) uint8 by area averaging, and the header (of `decode.decode` for DICOM, else
      photometric, rows, columns, bits, syntax and remarks); or None and {"reason": ...}.
    """
    try:
        picture, header = read_picture(job.path, job.place, channels=job.how.shape[-1])
        return _squared(picture, job.how), header
    except InputError as error:
        return None, refusal(job, error)


def refusal(job: Job, error: InputError) -> dict[str, str]:
    """{"reason": the sentence, with the file's name in place of its path}."""
    return {"reason": str(error).replace(job.path, job.path.rpartition("/")[2])}


def read_picture(
    path: str | os.PathLike[str], index: int = -1, *, channels: int = 1
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads a DICOM, PNG, JPEG, npy or npz file, whatever its name.

    Integers map to [0, 1] by all of 8 bits or, beyond, by the smallest range of whole bits
    that holds them but for outliers (`greys.stored_range`), so that a picture is the same in
    every container; floating-point values must lie in [0, 1] already. Transparency lies over
    black. Colour becomes grey by BT.601 where one channel is wanted, grey is repeated where
    three are.

    Args:
      path: the file.
      index: place in a stack (n, h, w) or (n, h, w, c); -1 for a file with one image.
      channels: 1 or 3.

    Returns:
      float32 (h, w), or (h, w, 3); and the header.

    Raises:
      InputError: the file cannot be read as one image, or shows nothing.
    """
    kind = containers.kind_of(path)
    if kind == "DICOM":
        if channels != 1:
            raise InputError(f"{path} is DICOM, which is read as grey; data.channels must be 1.")
        picture, header = decode.decode(path)
        if picture.ndim != 2:
            raise InputError(
                f"{path} holds {len(picture)} frames, a radiograph has one; save the one to be "
                "read as a file of its own."
            )
        return picture, header
    if kind in ("", "NIfTI"):
        raise containers.not_one_of(
            path, kind, "image (DICOM, PNG, JPEG, npy or npz, whatever its name)"
        )
    stored, header = _raster(path) if kind in ("PNG", "JPEG") else _array(path, index)
    if stored.size == 0:
        raise InputError(f"{path} holds no pixels; replace the file.")
    picture = _with_channels(stored, channels, path)
    greys.check_shown(picture, path)
    return picture, header


def equalized(picture: np.ndarray) -> np.ndarray:
    """Stretches a picture to 0..255 and equalises its histogram, as OpenCV's equalizeHist.

    Args:
      picture: (..., h, w) floats, not all equal.

    Returns:
      uint8 of the same shape; the share of darker pixels, counted without the darkest level.

    >>> equalized(np.array([[0.0, 0.5], [0.5, 1.0]])).tolist()
    [[0, 170], [170, 255]]
    """
    low, high = picture.min(), picture.max()
    levels = np.round(255 * (picture - low) / max(high - low, 1e-12)).astype(np.uint8)
    counts = np.bincount(levels.ravel(), minlength=256)
    above = np.cumsum(counts) - counts[0]
    return np.round(255 * above / max(above[-1], 1)).astype(np.uint8)[levels]


@functools.lru_cache(maxsize=2)
def open_stack(path: str) -> np.ndarray:
    """The images of an .npy (mapped, not read) or .npz (read) file.

    Of several arrays in an .npz the one with at least two axes is meant.

    Raises:
      InputError: the file cannot be read, or it is not clear which array is meant.
    """
    try:
        if containers.kind_of(path) != "npz":
            with np.errstate(over="raise"):  # a size that overflows is none
                return np.load(path, mmap_mode="r", allow_pickle=False)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:
            sizes.check_archive(path, sum(_declared(path, found)))
            arrays = {name: found[name] for name in found.files}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds
        why = decode.short(error)
        packed = " A zip of other files has to be unpacked first." * zipfile.is_zipfile(path)
        raise InputError(
            f"{path} is no npy or npz file that can be read ({why}).{packed}"
        ) from error
    wide = [name for name, array in arrays.items() if array.ndim >= 2]
    if len(wide) != 1:
        raise InputError(
            f"{path} holds the arrays {', '.join(arrays)}; exactly one may have images "
            f"(two axes or more), and {len(wide)} have."
        )
    return arrays[wide[0]]


def _declared(path: str, archive: np.lib.npyio.NpzFile) -> Iterator[int]:
    """Bytes that each array of an .npz has by its own header, and by the archive's."""
    assert archive.zip is not None  # it is open
    for info in archive.zip.infolist():
        yield info.file_size
        with archive.zip.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else (np.lib.format.read_array_header_2_0)
            )
            shape, _, dtype = read(member)
        sizes.check_archive(path, math.prod(shape) * dtype.itemsize)


def _raster(path: str | os.PathLike[str]) -> tuple[np.ndarray, dict[str, Any]]:
    pixels, mode, kind, remarks = read_raster(path)
    return pixels, _header(pixels, mode, kind, remarks)


def _array(path: str | os.PathLike[str], index: int) -> tuple[np.ndarray, dict[str, Any]]:
    stack = open_stack(str(path))
    chosen = stack if index < 0 else stack[index]
    sizes.check(path, chosen.shape)
    pixels = np.asarray(chosen)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[-1] == 3):
        raise InputError(
            f"{path} holds an array of the shape {pixels.shape}; an image is (h, w), (h, w, 1) "
            "or (h, w, 3)."
        )
    return pixels, _header(pixels, "grey" if pixels.ndim == 2 else "RGB", "array", [])


def _header(pixels: np.ndarray, mode: str, kind: str, remarks: list[str]) -> dict[str, Any]:
    rows, columns = pixels.shape[:2]
    return {
        "photometric": mode,
        "rows": rows,
        "columns": columns,
        "bits": 8 * pixels.itemsize,
        "syntax": kind,
        "remarks": remarks,
    }


def _with_channels(stored: np.ndarray, channels: int, path: str | os.PathLike[str]) -> np.ndarray:
    """Stored values to float32 in [0, 1] with `channels` channels, (h, w) of one."""
    if stored.dtype.kind == "f":
        if not (stored.min() >= 0 and stored.max() <= 1):
            raise InputError(
                f"{path} holds floating-point values that are not all in [0, 1]; rescale them, "
                "or store integers."
            )
        picture = stored.astype(np.float32)
    elif stored.dtype.kind not in "ui":
        raise InputError(f"{path} holds values of the type {stored.dtype}; numbers are wanted.")
    else:
        low, high = greys.stored_range(stored, 8 * stored.itemsize)
        inside = stored if stored.itemsize == 1 else np.clip(stored, low, high)
        picture = (inside.astype(np.float32) - low) / np.float32(high - low)
    if picture.ndim == 3 and channels == 1:
        return picture @ greys.LUMA
    return np.repeat(picture[..., None], 3, -1) if channels == 3 == picture.ndim + 1 else picture


def _squared(picture: np.ndarray, how: Stored) -> np.ndarray:
    """(h, w) or (h, w, 3) in [0, 1] to uint8 of `how.shape`."""
    planes = picture if picture.ndim == 2 else np.moveaxis(picture, -1, 0)
    if how.resize == "crop":
        planes = decode.square(planes)
    elif how.resize == "pad":
        planes = _padded(planes)
    small = decode.area_resize(planes, *how.shape[:2])
    if how.equalize:
        return equalized(small)[..., None]
    pixels = np.round(255 * np.clip(small, 0, 1)).astype(np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else np.moveaxis(pixels, 0, -1)


def _padded(planes: np.ndarray) -> np.ndarray:
    """Puts (..., h, w) into the middle of a black square."""
    h, w = planes.shape[-2:]
    side = max(h, w)
    sizes.check("the image with its bars", (*planes.shape[:-2], side, side))
    top, left = (side - h) // 2, (side - w) // 2
    around = [(0, 0)] * (planes.ndim - 2) + [(top, side - h - top), (left, side - w - left)]
    return np.pad(planes, around)
