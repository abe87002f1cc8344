"""One DICOM file to a float32 picture in [0, 1], and its header."""

import functools
import os
import warnings
from typing import Any

import numpy as np
import pydicom
from numpy.typing import ArrayLike
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from jaxfair.data.decoders import check_packed, decompressed
from jaxfair.errors import InputError

__all__ = [
    "area_resize",
    "area_weights",
    "decode",
    "grey",
    "header_texts",
    "raw_pixels",
    "read_dicom",
    "square",
    "stored_range",
    "windowed",
]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
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

    In the order of the DICOM standard (PS3.3 C.11 and C.7.6.3.1.2): stored values, modality
    LUT or rescale, VOI LUT or first window, MONOCHROME1 inverted. Colour becomes grey by
    BT.601. Without a window 8-bit values map to [0, 1] by their full range and wider ones by the
    smallest range of whole bits that holds them (12-bit films are often declared as 16-bit);
    only floating-point pixels, which have no such range, use their own.

    Args:
      path: a DICOM file.

    Returns:
      float32 pixels in [0, 1], (h, w), or (d, h, w) of a file with several frames; and the
      header: `age_text`, `sex_text`, `view_text`, `patient_text`, `photometric`, `modality`
      as written (never interpreted here), `rows`, `columns`, `bits`, `frames`, `syntax`, and
      `remarks`, the warnings of the decoder.

    Raises:
      InputError: the file is no DICOM file, holds no pixels, is cut off or cannot be decoded,
        or all its pixels are equal; the sentence names the file and the reason.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = read_dicom(path)
        stored = raw_pixels(dataset, path)
        picture = _guarded(lambda: grey(stored, dataset), path, "cannot be brought to grey levels")
    if picture.size == 0 or picture.min() == picture.max():
        raise InputError(f"{path} shows nothing: all its pixels are equal; replace the file.")
    remarks = sorted({f"{type(w.message).__name__}: {w.message}"[:200] for w in caught})
    return picture, _header(dataset, picture) | {"remarks": remarks}


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
        raise InputError(f"{path} is damaged ({_short(error)}); replace it.") from error


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
    return _guarded(lambda: decompressed(dataset), path, "cannot be decoded")


def grey(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Turns stored values (of `raw_pixels`) into float32 grey levels in [0, 1]."""
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.ndim >= 3 and stored.shape[-1] == 3 and photometric[:4] != "MONO":
        return (stored @ LUMA) / np.float32(np.iinfo(stored.dtype).max)
    picture = _monochrome(stored, dataset)
    return 1.0 - picture if photometric == "MONOCHROME1" else picture


def windowed(
    values: ArrayLike, center: float, width: float, function: str = "LINEAR"
) -> np.ndarray:
    """Maps values through a VOI window to [0, 1] (DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Args:
      values: any shape, after the modality LUT.
      center: window centre, in the units of `values`.
      width: window width; at least 1 for LINEAR, above 0 otherwise.
      function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
      InputError: a width that the standard forbids, or an unknown function.
    """
    if width < 1 if function == "LINEAR" else width <= 0:
        raise InputError(f"window width {width} is too small for {function}; mend the header.")
    values = np.asarray(values, np.float32)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -80, 80)))
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise InputError(f"window function {function!r} is not LINEAR, LINEAR_EXACT or SIGMOID.")
    shift = 0.5 if function == "LINEAR" else 0.0
    above = values - np.float32(center - shift)
    if width == 2 * shift:  # one step, as the standard has it
        return (above > 0).astype(np.float32)
    return np.clip(above / np.float32(width - 2 * shift) + 0.5, 0, 1)


def stored_range(stored: np.ndarray, bits: int) -> tuple[int, int]:
    """Smallest range of whole bits, 8 at least, that holds integers: their black and white.

    Args:
      stored: integers of any shape, at least one.
      bits: as many as the values may have.
    """
    low, high = int(stored.min()), int(stored.max())
    used = min(bits, max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0, 8))
    return (-(2**used) if low < 0 else 0), 2**used - 1


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


def _monochrome(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0].LUTDescriptor
        mapped = apply_voi_lut(values, dataset, prefer_lut=True).astype(np.float32)
        return np.clip(mapped / np.float32(2 ** table[2] - 1), 0, 1)
    if dataset.get("WindowWidth") is not None and dataset.get("WindowCenter") is not None:
        center, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
        return windowed(values, center, width, str(dataset.get("VOILUTFunction") or "LINEAR"))
    low, high = _value_range(stored, values, dataset)
    return np.clip((values.astype(np.float32) - low) / np.float32(max(high - low, 1e-12)), 0, 1)


def _value_range(
    stored: np.ndarray, values: np.ndarray, dataset: pydicom.Dataset
) -> tuple[float, float]:
    """The values that become black and white where the header names no window."""
    if dataset.get("ModalityLUTSequence"):
        entries = np.asarray(dataset.ModalityLUTSequence[0].LUTData, np.float64)
        return float(entries.min()), float(entries.max())
    if stored.dtype.kind == "f":
        return float(values.min()), float(values.max())
    ends = np.array(stored_range(stored, int(dataset.BitsStored)))
    slope = float(dataset.get("RescaleSlope") or 1.0)
    intercept = float(dataset.get("RescaleIntercept") or 0.0)
    low, high = sorted(ends * slope + intercept)
    return float(low), float(high)


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)


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


def _guarded(work: Any, path: str | os.PathLike[str], what: str) -> np.ndarray:
    try:
        return work()
    except InputError as error:
        raise InputError(f"{path} {what}: {error}") from error
    except Exception as error:
        raise InputError(f"{path} {what} ({_short(error)}); replace the file.") from error


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
