"""A folder of DICOM slices to one volume and its affine; every slice is asked, not the first."""

import pathlib
from typing import Any

import numpy as np
import pydicom

from jaxfair.data import containers, decode, greys, sizes
from jaxfair.data.decoders import declared_shape
from jaxfair.errors import InputError

__all__ = ["read_series"]

COMPANIONS = ("thumbs.db", "desktop.ini", "dicomdir")
SAME_ORIENTATION = 1e-3
"""Two direction cosines that differ by less are one orientation (rounding of headers)."""
UNEVEN = 0.1
"""Share of the distance of two slices by which the distances of others may differ."""

Slices = list[tuple[pathlib.Path, pydicom.Dataset]]


def read_series(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Reads the slices of one series, whatever their names, and where they lie.

    Left out, with a remark: hidden files and those that a desktop or a disc leaves (.DS_Store,
    "._x", Thumbs.db, DICOMDIR), DICOM files of another class without an image (reports,
    presentation states), and files that are no DICOM and have a suffix that no slice has.

    Returns:
      float32 (columns, rows, slices), rescaled (Hounsfield units of CT), padding as the lowest
      value of its slice; the affine (4, 4) to mm to the right, front and head (DICOM PS3.3
      C.7.6.2.1.1, its patient axes turned to nibabel's RAS+); and the header.

    Raises:
      InputError: slices of several series, orientations, shapes or pixel sizes; slices that are
        missing, there twice, unevenly spaced or do not say where they lie; no slice at all.
    """
    slices, remarks = _slices(folder)
    sizes.check(folder, (len(slices), *declared_shape(slices[0][1])))
    orientation, pixel = _common(slices, folder)
    places = _of_all(slices, "ImagePositionPatient", 3, folder)
    normal = np.cross(*orientation)
    heights = places @ normal
    order = np.argsort(heights)
    step = _step(places[order], heights[order], normal, slices[0][1], folder)
    planes = [_plane(*slices[i]) for i in order]
    if len({plane.shape for plane in planes}) > 1:
        raise InputError(f"{folder} holds slices of different shapes; keep one series of them.")
    affine = np.eye(4)
    affine[:3] = np.column_stack(
        (orientation[0] * pixel[1], orientation[1] * pixel[0], step, places[order[0]])
    )
    header = decode.header_texts(slices[0][1]) | {"syntax": "DICOM series", "remarks": remarks}
    return np.stack(planes).T, np.diag([-1.0, -1, 1, 1]) @ affine, header


def _slices(folder: pathlib.Path) -> tuple[Slices, list[str]]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sizes.check_bytes(folder, sum(path.stat().st_size for path in files), "files")
    remarks, strange, slices = set(), [], []
    for path in files:
        if path.name.startswith(".") or path.name.lower() in COMPANIONS:
            remarks.add(
                "left out: files of a desktop or a disc (.DS_Store, ._*, Thumbs.db, DICOMDIR)"
            )
        elif containers.kind_of(path) != "DICOM":
            strange.append(path)
        else:
            slices.append((path, decode.read_dicom(path)))
    images = [(path, one) for path, one in slices if _is_image(one)]
    kinds = {_class_of(one) for _, one in images}
    for path, one in slices:
        if not _is_image(one):
            if _class_of(one) in kinds:
                raise InputError(f"{path} is cut off before its image; replace the file.")
            remarks.add("left out: DICOM files without an image")
    if not images:
        raise InputError(
            f"{folder} holds no DICOM slice (folders in it are not looked into); name the folder "
            "of one series."
        )
    suffixes = {path.suffix.lower() for path, _ in images}
    for path in strange:
        if path.suffix.lower() in suffixes:
            raise InputError(
                f"{path} is no DICOM file, and is named like the slices beside it; replace or "
                "remove it."
            )
        remarks.add("left out: files that are no DICOM")
    return images, sorted(remarks)


def _class_of(dataset: pydicom.Dataset) -> str:
    return str(dataset.file_meta.get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID"))


def _is_image(dataset: pydicom.Dataset) -> bool:
    return "Rows" in dataset or "PixelData" in dataset


def _common(slices: Slices, folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """(2, 3) directions of rows and columns, and (2,) mm between rows and columns, of all slices.

    Raises:
      InputError: they are not the same in all slices, or are none.
    """
    series = {str(one.get("SeriesInstanceUID", "")) for _, one in slices}
    if len(series) > 1:
        raise InputError(f"{folder} holds slices of {len(series)} series; keep one of them.")
    turns = _of_all(slices, "ImageOrientationPatient", 6, folder)
    pixels = _of_all(slices, "PixelSpacing", 2, folder)
    if np.ptp(turns, axis=0).max() > SAME_ORIENTATION:
        raise InputError(f"{folder} holds slices of several orientations; keep one of them.")
    if np.ptp(pixels, axis=0).max() > 0.01 * pixels.min():
        raise InputError(f"{folder} holds slices of several pixel sizes; keep one of them.")
    turn, pixel = turns[0].reshape(2, 3), pixels[0]
    if np.abs(turn @ turn.T - np.eye(2)).max() > 10 * SAME_ORIENTATION or not pixel.min() > 0:
        raise InputError(
            f"{folder} says that rows run along {turn[0]}, columns along {turn[1]} and pixels "
            f"are {pixel} mm large, which cannot be; mend its headers."
        )
    return turn, pixel


def _of_all(slices: Slices, name: str, count: int, folder: pathlib.Path) -> np.ndarray:
    """(slices, count) numbers of an element that every slice must have."""
    found = []
    for path, one in slices:
        values = decode.guarded(lambda: greys.numbers(one, name), path, "cannot be placed")  # noqa: B023
        if len(values) != count:
            raise InputError(
                f"{folder} holds a slice that does not say where it lies ({path.name} has no "
                f"{name} of {count} numbers); replace the series."
            )
        found.append(values)
    return np.array(found)


def _step(
    places: np.ndarray,
    heights: np.ndarray,
    normal: np.ndarray,
    first: pydicom.Dataset,
    folder: pathlib.Path,
) -> np.ndarray:
    """(3,) mm from one slice to the next, which must be the same for all."""
    if len(places) == 1:
        return normal * decode.guarded(lambda: _thickness(first), folder, "cannot be placed")
    gaps = np.diff(heights)
    if gaps.min() <= 0 or np.ptp(gaps) > UNEVEN * np.median(gaps):
        raise InputError(
            f"{folder} has slices {gaps.min():.2f} to {gaps.max():.2f} mm apart; one is missing "
            "or there twice, or they are not evenly spaced."
        )
    step = (places[-1] - places[0]) / (len(places) - 1)
    line = places[0] + np.arange(len(places))[:, None] * step
    if np.abs(places - line).max() > 0.5 * np.median(gaps):
        raise InputError(f"{folder} has slices that do not lie in one line; keep one series.")
    return step


def _thickness(dataset: pydicom.Dataset) -> float:
    between = greys.number(dataset, "SpacingBetweenSlices", 0.0)
    return abs(between) or greys.number(dataset, "SliceThickness", 0.0) or 1.0


def _plane(path: pathlib.Path, dataset: pydicom.Dataset) -> np.ndarray:
    stored = decode.raw_pixels(dataset, path)
    plane = decode.guarded(lambda: _rescaled(stored, dataset), path, "cannot be rescaled")
    dataset.PixelData = b""  # its bytes are not needed again
    return plane


def _rescaled(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    plane, outside = greys.rescaled(stored, dataset), greys.padding(stored, dataset)
    if outside is not None and not outside.all():
        plane[outside] = plane[~outside].min()
    return plane
