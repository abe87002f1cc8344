"""Stored values of any container to grey levels in [0, 1], by rules that are public constants.

What is white must not depend on the container, nor on one pixel. So a range is the smallest one
of whole bits, as far as the container declares them, that holds all but `OUTLIERS` of the values;
what a file declares as padding takes no part, and becomes black. Nothing is measured across images.
"""

import os
from typing import Any

import numpy as np
import pydicom
from numpy.typing import ArrayLike
from pydicom.pixels import apply_color_lut

from jaxfair.errors import InputError

__all__ = [
    "LUMA",
    "OUTLIERS",
    "RULE",
    "check_shown",
    "float_range",
    "grey",
    "number",
    "numbers",
    "padding",
    "rescaled",
    "stored_range",
    "windowed",
]

RULE = 2
"""Version of the rule by which files become pixels; raised with every change of a pixel."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

OUTLIERS = 0.005
"""Share of values that may lie outside a range: hot pixels, burned-in letters; as nnU-Net's
percentiles 0.5 and 99.5 (Isensee et al. 2021)."""

NOISE = 1 / 16
"""Share of the range by which values below 0 are noise, as lossy compression makes it."""


def grey(stored: np.ndarray, dataset: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray | None]:
    """Turns stored values (of `decode.raw_pixels`) into grey levels.

    In the order of the DICOM standard (PS3.3 C.11 and C.7.6.3.1.2): modality LUT or rescale, VOI
    LUT or first window of a width, MONOCHROME1 inverted; what is empty is as if it were not there.

    Returns:
      float32 in [0, 1], padding 0; and where the padding lies (`padding`), or None.

    Raises:
      InputError: a number of the header, or a floating-point pixel, is not finite.
    """
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    if stored.dtype.kind == "f" and not np.isfinite(stored).all():
        raise InputError("it holds pixels that are not finite; replace the file.")
    if photometric == "PALETTE COLOR":
        return _by_palette(stored, dataset), None
    if stored.ndim >= 3 and stored.shape[-1] == 3 and photometric[:4] != "MONO":
        return luma(stored, int(dataset.BitsStored)), None
    outside = padding(stored, dataset)
    picture = _monochrome(stored, dataset, outside)
    picture = 1.0 - picture if photometric == "MONOCHROME1" else picture
    if outside is not None:
        picture[outside] = 0
    return picture, outside


def luma(stored: np.ndarray, bits: int) -> np.ndarray:
    """Integers (..., 3) of `bits` bits to float32 grey in [0, 1] (ITU-R BT.601)."""
    _, high = stored_range(stored, bits)
    inside = stored if high == np.iinfo(stored.dtype).max else np.minimum(stored, high)
    return inside @ LUMA / np.float32(high)


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
      InputError: a width that the standard forbids or is not finite, or an unknown function.
    """
    if not np.isfinite([center, width]).all():
        raise InputError(f"window {center}, {width} is not finite; mend the header.")
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
    """Smallest range of whole bits, 8 at least, that holds all but `OUTLIERS` of integers.

    Black is 0, unless more than `OUTLIERS` of the values lie further below it than `NOISE`; then
    the range reaches as far below 0 as above.

    Args:
      stored: integers of any shape, at least one.
      bits: as many as the values may have, a sign included; of 8 or fewer all are the range.

    >>> stored_range(np.array([0, 4095, 100]), 16), stored_range(np.array([-3000, 100]), 16)
    ((0, 4095), (-4096, 4095))
    """
    if stored.dtype.kind != "i":
        return 0, 2 ** _bits_used(stored, bits, signed=False) - 1
    used, spare = _bits_used(stored, bits - 1, signed=False), int(OUTLIERS * stored.size)
    if np.count_nonzero(stored < -NOISE * 2**used) <= spare:
        return 0, 2**used - 1
    used = _bits_used(stored, bits - 1, signed=True)
    return -(2**used), 2**used - 1


def float_range(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest of floats, without those that lie far from the others.

    Far is more than half the range of all but `OUTLIERS` at each end beyond that range.
    """
    inner = np.quantile(values, [OUTLIERS, 1 - OUTLIERS])
    reach = (inner[1] - inner[0]) / 2
    if reach > 0:
        values = values[(values >= inner[0] - reach) & (values <= inner[1] + reach)]
    return float(values.min()), float(values.max())


def rescaled(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values after the modality LUT or the rescale slope and intercept: float32.

    Raises:
      InputError: slope or intercept is not finite.
    """
    table = _table(dataset, "ModalityLUTSequence")
    if table is not None:
        return _looked_up(stored, *table).astype(np.float32)
    slope, start = number(dataset, "RescaleSlope", 1.0), number(dataset, "RescaleIntercept", 0.0)
    if stored.itemsize > 2:  # more than float32 holds exactly
        return (stored.astype(np.float64) * slope + start).astype(np.float32)
    values = stored.astype(np.float32)
    return values if (slope, start) == (1, 0) else values * np.float32(slope) + np.float32(start)


def padding(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Where the stored values are Pixel Padding Value, or up to its Range Limit; None: nowhere.

    (DICOM PS3.3 C.7.5.1.1.2.) A value of the other sign's type means the same bits.
    """
    value = number(dataset, "PixelPaddingValue", None)
    if value is None or stored.dtype.kind not in "ui":
        return None
    limit = number(dataset, "PixelPaddingRangeLimit", value)
    ends = np.array([value, value if limit is None else limit]).astype(np.int64)
    low, high = np.sort(ends.astype(stored.dtype))
    outside = stored == low if low == high else (stored >= low) & (stored <= high)
    return outside if outside.any() else None


def number(dataset: pydicom.Dataset, name: str, default: Any) -> Any:
    """The first number of an element, or `default` where it is missing or empty."""
    found = numbers(dataset, name)
    return found[0] if found else default


def numbers(dataset: pydicom.Dataset, name: str) -> list[float]:
    """All numbers of an element, [] where there are none; InputError if one is not finite."""
    value = dataset.get(name)
    if value is None or value == "":
        return []
    several = isinstance(value, (pydicom.multival.MultiValue, list, tuple))
    found = [float(v) for v in (value if several else [value]) if v not in (None, "")]
    if not np.isfinite(found).all():
        raise InputError(f"its {name} is {value}, and numbers are wanted; mend the header.")
    return found


def check_shown(
    picture: np.ndarray, path: str | os.PathLike[str], outside: np.ndarray | None = None
) -> None:
    """Raises InputError for a picture that is empty, not finite, or of one grey but for padding."""
    shown = picture if outside is None else picture[~outside]
    if shown.size == 0 or (low := shown.min()) == (high := shown.max()):
        raise InputError(f"{path} shows nothing: all its pixels are equal; replace the file.")
    if not np.isfinite([low, high]).all():
        raise InputError(f"{path} holds pixels that are not finite; replace the file.")


def _bits_used(stored: np.ndarray, most: int, *, signed: bool) -> int:
    """The fewest bits of magnitude, 8 at least with the sign, that all but outliers have."""
    least, spare = min(8 - signed, most), int(OUTLIERS * stored.size)
    if most <= least:
        return most
    ends = [int(stored.max()), -int(stored.min()) - 1 if signed else 0]
    used = min(most, max(*(max(end, 0).bit_length() for end in ends), least))
    while used > least and not any(
        _beyond(part, used - 1, signed) > spare for part in (stored[::8], stored)
    ):  # an eighth of the rows mostly settles it
        used -= 1
    return used


def _beyond(stored: np.ndarray, bits: int, signed: bool) -> int:
    count = np.count_nonzero(stored >= 2**bits)
    return int(count + (np.count_nonzero(stored < -(2**bits)) if signed else 0))


def _monochrome(
    stored: np.ndarray, dataset: pydicom.Dataset, outside: np.ndarray | None
) -> np.ndarray:
    values = rescaled(stored, dataset)
    table = _table(dataset, "VOILUTSequence")
    if table is not None:
        low, high = stored_range(table[0], 16)
        return _spread(_looked_up(values, *table).astype(np.float32), low, high)
    window = _window(dataset)
    if window is not None:
        return windowed(values, *window, str(dataset.get("VOILUTFunction") or "LINEAR"))
    shown = stored if outside is None else stored[~outside]
    return _spread(values, *_value_range(shown, dataset)) if shown.size else np.zeros_like(values)


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    picture = values - np.float32(low)
    picture /= np.float32(max(high - low, 1e-12))  # in place: memory is what takes the time
    return np.clip(picture, 0, 1, out=picture)


def _value_range(stored: np.ndarray, dataset: pydicom.Dataset) -> tuple[float, float]:
    """The values that become black and white where the header names no window."""
    table = _table(dataset, "ModalityLUTSequence")
    if table is not None:
        return float_range(table[0].astype(np.float64))
    if stored.dtype.kind == "f":
        ends = float_range(stored)
    else:
        ends = stored_range(stored, int(dataset.BitsStored))
    slope, start = number(dataset, "RescaleSlope", 1.0), number(dataset, "RescaleIntercept", 0.0)
    low, high = sorted(end * slope + start for end in ends)
    return low, high


def _window(dataset: pydicom.Dataset) -> tuple[float, float] | None:
    """Centre and width of the first window that has a width."""
    pairs = zip(numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth"))
    return next((pair for pair in pairs if pair[1] != 0), None)


def _table(dataset: pydicom.Dataset, name: str) -> tuple[np.ndarray, int] | None:
    """Entries of a look-up table and the value that the first is for; None where it is empty."""
    item = dataset[name].value[0] if dataset.get(name) else None
    descriptor, data = (item.get(n) if item else None for n in ("LUTDescriptor", "LUTData"))
    if not descriptor or not data:
        return None
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] in (True, None) else ">"
        wide = len(data) > (int(descriptor[0]) or 2**16)
        data = np.frombuffer(data, f"{order}u2" if wide else np.uint8)
    entries = np.atleast_1d(np.asarray(data)).astype(np.int64).astype(np.uint16)
    return entries[: int(descriptor[0]) or 2**16], int(descriptor[1])


def _looked_up(values: np.ndarray, entries: np.ndarray, first: int) -> np.ndarray:
    """The entry of each value; beyond the table's ends its first and last."""
    places = np.rint(values).astype(np.int64) - first
    return entries[np.clip(places, 0, len(entries) - 1)]


def _by_palette(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Grey levels of a palette's colours; its entries, not the picture, say what is white."""
    size, first, _ = dataset.RedPaletteColorLookupTableDescriptor
    entries = np.arange(first, first + (size or 2**16))
    colours = luma(apply_color_lut(entries, dataset)[..., :3], 16)
    return _looked_up(stored, colours, first)
