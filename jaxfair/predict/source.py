"""What a DICOM map takes over of the file that it was made from, read where files are decoded.

What a map shows is filed by a viewer under the patient and the study of its source, so their names
and numbers are taken over, and nothing else of the header: COPIED is the whole list.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pydicom

from jaxfair.data import containers, decode, greys
from jaxfair.data.pixels import Job
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

__all__ = ["COPIED", "FILM", "Source", "read_source", "region_of"]

COPIED = (
    "SpecificCharacterSet", "TimezoneOffsetFromUTC",
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientIdentityRemoved", "DeidentificationMethod",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription",
    "AccessionNumber", "ReferringPhysicianName",
    "BodyPartExamined", "Laterality", "PatientOrientation", "BurnedInAnnotation",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
"""Elements of the source that stand in its maps as they are; without a value in none."""
FILM = 1024
"""Pixels of the longer side of a film as it is shown under its map."""

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
_ORTHOGONAL = 1e-3


class Source(NamedTuple):
    """A film or a series, as its maps need it.

    Attributes:
      elements: those of COPIED.
      series: its SeriesInstanceUID.
      instances: (SOP class, SOP instance) of the file, or of each slice.
      frame: FrameOfReferenceUID of the affine; "" for that of a film which has none.
      affine: (4, 4), from (column, row, slice, 1) of the map to mm to left, back and head.
      film: (h, w) uint8 as a reader sees it, FILM pixels long; None of a series.
      region: (top, left, height, width) of what the model read, in pixels of `film`.
    """

    elements: pydicom.Dataset
    series: str
    instances: list[tuple[str, ...]]
    frame: str
    affine: np.ndarray
    film: np.ndarray | None = None
    region: tuple[float, ...] = ()


def read_source(
    read: Callable[[Job], tuple[np.ndarray | None, dict[str, Any]]], job: Job
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Reads a file by `read`, and adds `source` to the header: a Source, or why there is none.

    Args:
      read: of the model.
      job: a file of any kind, or a folder of DICOM slices.

    Returns:
      what `read` gives; a file that is no DICOM has "" as its source.
    """
    pixels, header = read(job)
    if pixels is None:
        return pixels, header
    try:
        with decode.noted():  # they are among the remarks of the header
            found: Source | str = _source(pathlib.Path(job.path), job.how, header)
    except InputError as error:
        found = str(error).replace(job.path, pathlib.PurePath(job.path).name)
    return pixels, header | {"source": found}


def _source(path: pathlib.Path, how: Stored, header: dict[str, Any]) -> Source | str:
    if how.volume is not None:
        return _of_series(path, header["affine"]) if path.is_dir() else ""
    if containers.kind_of(path) != "DICOM":
        return ""
    dataset = decode.read_dicom(path)
    picture, _ = decode.decode(path)
    scale = FILM / max(picture.shape)
    size = [max(1, round(scale * n)) for n in picture.shape]
    film = np.round(255 * np.clip(decode.area_resize(picture, *size), 0, 1)).astype(np.uint8)
    region = region_of(picture.shape, how)
    plane, frame = _plane(dataset)
    return Source(
        elements=_copied(dataset),
        series=_uids(dataset)[1],
        instances=[_uids(dataset)[2:]],
        frame=frame,
        affine=plane @ _to_film(region, how.shape),
        film=film,
        region=tuple(float(scale * n) for n in region),
    )


def _of_series(folder: pathlib.Path, affine: np.ndarray) -> Source:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    slices = [
        one
        for one in (_header(path) for path in files if containers.kind_of(path) == "DICOM")
        if "Rows" in one
    ]
    first = slices[0]
    return Source(
        elements=_copied(first),
        series=_uids(first)[1],
        instances=[_uids(one)[2:] for one in slices],
        frame=str(first.get("FrameOfReferenceUID") or ""),
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine,
    )


def _header(path: pathlib.Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


def region_of(shape: Sequence[int], how: Stored) -> tuple[int, int, int, int]:
    """(top, left, height, width) of what is read of a film of (rows, columns); bars are outside.

    >>> region_of((100, 80), Stored()), region_of((100, 80), Stored(resize="pad"))
    ((10, 0, 80, 80), (0, -10, 100, 100))
    """
    rows, columns = shape
    if how.resize == "stretch":
        return 0, 0, rows, columns
    if how.resize == "pad":
        side = max(rows, columns)
        return -((side - rows) // 2), -((side - columns) // 2), side, side
    side = min(rows, columns)
    return (rows - side) // 2, (columns - side) // 2, side, side


def _to_film(region: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """(4, 4) from (column, row, 0, 1) of the map to that of the film, both of pixels' middles."""
    top, left, height, width = region
    change = np.eye(4)
    change[0, 0], change[1, 1] = width / shape[1], height / shape[0]
    change[0, 3], change[1, 3] = left + change[0, 0] / 2 - 0.5, top + change[1, 1] / 2 - 0.5
    return change


def _plane(dataset: pydicom.Dataset) -> tuple[np.ndarray, str]:
    """The affine of a film's pixels and its frame: of the patient where said, else its own.

    That of its own begins in the middle of the first pixel, runs along rows and columns, and has
    1 mm for a pixel where the file does not say how large they are.
    """
    frame = str(dataset.get("FrameOfReferenceUID") or "")
    start = _numbers(dataset, "ImagePositionPatient", 3)
    turn = _numbers(dataset, "ImageOrientationPatient", 6)
    sizes = _numbers(dataset, "PixelSpacing", 2)
    affine = np.eye(4)
    if frame and start is not None and turn is not None and sizes is not None:
        axes = turn.reshape(2, 3)
        if np.abs(axes @ axes.T - np.eye(2)).max() < _ORTHOGONAL:
            affine[:3, :2] = axes.T * sizes[::-1]
            affine[:3, 2], affine[:3, 3] = np.cross(*axes), start
            return affine, frame
    sizes = _numbers(dataset, "ImagerPixelSpacing", 2) if sizes is None else sizes
    if sizes is not None:
        affine[:2, :2] = np.diag(sizes[::-1])
    return affine, ""


def _numbers(dataset: pydicom.Dataset, name: str, count: int) -> np.ndarray | None:
    """(count,) finite numbers of an element, sizes above 0; None for anything else."""
    try:
        values = np.array(greys.numbers(dataset, name), float)
    except (InputError, ValueError, TypeError):
        return None
    good = values.shape == (count,) and np.isfinite(values).all()
    return values if good and (count != 2 or (values > 0).all()) else None


def _uids(dataset: pydicom.Dataset) -> tuple[str, ...]:
    """The UIDs of _UIDS. Raises InputError where one is none: nothing could be filed by it."""
    found = tuple(str(dataset.get(name) or "") for name in _UIDS)
    for name, uid in zip(_UIDS, found):
        if not pydicom.uid.UID(uid).is_valid:
            raise InputError(f"No DICOM map: the file has no valid {name}.")
    return found


def _copied(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """The elements of COPIED that can be read and written again."""
    kept = pydicom.Dataset()
    for name in COPIED:
        try:
            element = dataset[name]
        except KeyError:
            continue
        except Exception:  # pydicom raises what it likes
            continue
        if not element.is_empty:
            kept[name] = element
    return kept
