"""One DICOM file to a float32 picture in [0, 1], and its header."""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pydicom

from jaxfair.data import greys
from jaxfair.data.decoders import check_packed, decompressed
from jaxfair.errors import InputError

__all__ = [
    "area_resize",
    "area_weights",
    "decode",
    "guarded",
    "header_texts",
    "noted",
    "raw_pixels",
    "read_dicom",
    "short",
    "square",
]

Result = TypeVar("Result")
HEADER_TEXTS = {
    "age_text": "PatientAge",
    "sex_text": "PatientSex",
    "view_text": "ViewPosition",
    "patient_text": "PatientID",
    "photometric": "PhotometricInterpretation",
    "modality": "Modality",
}


def decode(path: str | os.PathLike[str]) -> tuple[np.ndarray, dict[str, Any]]:
    """Decodes one DICOM file into what a reader on a light box would see.

    Stored values become grey by `greys.grey`: modality LUT or rescale, VOI LUT or window,
    MONOCHROME1 inverted, padding black, colour by BT.601. Without a window 8-bit values map to
    [0, 1] by their full range and wider ones by the smallest range of whole bits that holds
    them but for outliers (12-bit films are often declared as 16-bit); only floating-point
    pixels, which have no such range, use their own.

    Args:
      path: a DICOM file.

    Returns:
      float32 pixels in [0, 1], (h, w), or (d, h, w) of a file with several frames; and the
      header: `age_text`, `sex_text`, `view_text`, `patient_text`, `photometric`, `modality`
      as written (never interpreted here), `rows`, `columns`, `bits`, `frames`, `syntax`, and
      `remarks`, the warnings of the decoder.

    Raises:
      InputError: the file is no DICOM file, holds no pixels, is cut off or cannot be decoded,
        all its pixels are equal, or a number is not finite; the sentence names the file and
        the reason.
    """
    with noted() as remarks:
        dataset = read_dicom(path)
        stored = raw_pixels(dataset, path)
        picture, outside = guarded(
            lambda: greys.grey(stored, dataset), path, "cannot be brought to grey levels"
        )
    greys.check_shown(picture, path, outside)
    return picture, _header(dataset, picture) | {"remarks": remarks}


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """Gives a list that at the end of the block holds the warnings raised in it, once each."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield remarks
    remarks += sorted({f"{type(w.message).__name__}: {w.message}"[:200] for w in caught})


def read_dicom(path: str | os.PathLike[str]) -> pydicom.Dataset:
    """Reads a DICOM file's elements without decoding pixels; InputError if it is none."""
    try:
        check_packed(path)
        return pydicom.dcmread(path)
    except InputError:
        raise
    except pydicom.errors.InvalidDicomError as error:
        raise InputError(f"{path} is no DICOM file (no DICM prefix); replace it.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        raise InputError(f"{path} is damaged ({short(error)}); replace it.") from error


def raw_pixels(dataset: pydicom.Dataset, path: str | os.PathLike[str] = "file") -> np.ndarray:
    """Stored pixel values as they lie in the file, YBR turned to RGB, no LUT applied.

    Returns:
      (h, w), (h, w, 3), (d, h, w) or (d, h, w, 3) in the file's own integer or float type.

    Raises:
      InputError: no pixel element, too few bytes, or no decoder for the transfer syntax.
    """
    names = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    if not any(name in dataset for name in names):
        raise InputError(f"{path} holds no pixels; replace the file.")
    return guarded(lambda: decompressed(dataset), path, "cannot be decoded")


def square(picture: np.ndarray) -> np.ndarray:
    """Cuts the middle square out of the last two axes: (..., h, w) -> (..., s, s)."""
    h, w = picture.shape[-2:]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    return picture[..., top : top + side, left : left + side]


def area_resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes the last two axes by area averaging: (..., h, w) -> (..., height, width) float32.

    Each output pixel is the mean of the rectangle that it covers, border pixels counted by the
    part that is covered; exact for any ratio, so the mean of the picture is kept.

    >>> area_resize(np.array([[0.0, 3.0, 6.0]]), 1, 2)
    array([[1., 5.]], dtype=float32)
    """
    rows = area_weights(picture.shape[-2], height)
    columns = area_weights(picture.shape[-1], width)
    return rows @ np.asarray(picture, np.float32) @ columns.T


@functools.lru_cache(maxsize=64)
def area_weights(old: int, new: int) -> np.ndarray:
    """(new, old) float32 matrix whose row i holds the share of each old cell in new cell i."""
    edges = np.arange(new + 1) * (old / new)
    low = np.maximum(edges[:-1, None], np.arange(old))
    high = np.minimum(edges[1:, None], np.arange(1, old + 1))
    return (np.clip(high - low, 0, None) * (new / old)).astype(np.float32)


def header_texts(dataset: pydicom.Dataset) -> dict[str, str]:
    """`age_text`, `sex_text` and the other names of `HEADER_TEXTS`, as written in a file."""
    return {name: _text(dataset, keyword) for name, keyword in HEADER_TEXTS.items()}


def _header(dataset: pydicom.Dataset, picture: np.ndarray) -> dict[str, Any]:
    meta = getattr(dataset, "file_meta", None)
    return header_texts(dataset) | {
        "rows": picture.shape[-2],
        "columns": picture.shape[-1],
        "frames": picture.shape[0] if picture.ndim == 3 else 1,
        "bits": int(dataset.get("BitsStored") or 0),
        "syntax": str(meta.get("TransferSyntaxUID", "")) if meta else "",
    }


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    """The element as written, without pydicom's reading of it ('43' is no valid age to it)."""
    tag = pydicom.datadict.tag_for_keyword(keyword)
    if tag is None or tag not in dataset:
        return ""
    value = dataset.get_item(tag).value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return "" if value is None else str(value).strip(" \0")


def guarded(work: Callable[[], Result], path: str | os.PathLike[str], what: str) -> Result:
    """`work()`, whose every exception becomes an InputError "path what (the reason)"."""
    try:
        return work()
    except InputError as error:
        raise InputError(f"{path} {what}: {error}") from error
    except Exception as error:
        raise InputError(f"{path} {what} ({short(error)}); replace the file.") from error


def short(error: Exception) -> str:
    """What an exception of a library says, on one line of at most 160 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
