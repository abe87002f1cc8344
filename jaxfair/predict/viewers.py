"""Anomaly maps as DICOM, for a viewer: an overlay to look at, a parametric map to measure by.

Both stand in the study of their source under the patient's own name and number: they are as
identifying as the input.
"""

import datetime
import io
import pathlib
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

import jaxfair
from jaxfair import files
from jaxfair.data.decode import guarded, noted
from jaxfair.errors import InputError
from jaxfair.model_file.model import Model
from jaxfair.predict.painting import painted
from jaxfair.predict.source import COPIED, Source
from jaxfair.schema import CAUTION

__all__ = ["LEVELS", "Filing", "overlay", "parametric_map", "write_case", "write_dicom"]

LEVELS = 2**16 - 1
"""Steps between the lowest and the highest value of a map, as a parametric map stores it."""
_TITLES = {"overlay": "anomaly overlay", "map": "anomaly map"}
_NUMBERS = {"overlay": 9001, "map": 9002}
_EMPTY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
          "StudyID", "AccessionNumber", "ReferringPhysicianName")  # fmt: skip


class Filing:
    """The new series of a run: one of each kind for each series that was read."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def next(self, source: Source, kind: str) -> tuple[str, int]:
        """Returns the SeriesInstanceUID for a map of `kind`, and the next number in it."""
        uid = self._series.setdefault((source.series, kind), generate_uid())
        self._counts[uid] = self._counts.get(uid, 0) + 1
        return uid, self._counts[uid]


def write_case(
    out: pathlib.Path,
    name: str,
    source: Source | str,
    maps: np.ndarray | None,
    model: Model,
    filing: Filing,
) -> tuple[str, list[str]]:
    """Returns where the DICOM map of a case lies, and why there is none; "" and [] if none is due.

    Args:
      source: as `read_source` gives it.
      maps: None where the model has none; others of `write_dicom`.
    """
    if maps is None or not source:
        return "", []
    if not isinstance(source, Source):
        return "", [source]
    try:
        return write_dicom(out, name, source, maps, model, filing), []
    except InputError as error:
        return "", [str(error)]


def write_dicom(
    out: pathlib.Path, name: str, source: Source, maps: np.ndarray, model: Model, filing: Filing
) -> str:
    """Writes the overlay (of a film) and the parametric map of a case under `out`/dicom.

    Args:
      name: of the case; each has another.
      source: of `read_source`.
      maps: (h, w) of a film, (d, h, w) of a volume, on the grid of what was scored.

    Returns:
      the path of the one to look at, below `out`.

    Raises InputError where the header of the source makes no DICOM file, or the map is not finite.
    """
    if not np.isfinite(maps).all():
        raise InputError(f"{name} gets no DICOM map: its map is not finite.")
    kinds = ["overlay", "map"] if source.film is not None else ["map"]
    places = [f"dicom/{files.slug(name)}.{kind}.dcm" for kind in kinds]
    made = {"overlay": overlay, "map": parametric_map}
    contents = [
        guarded(lambda k=kind: _content(made[k](source, maps, model, *filing.next(source, k))),  # type: ignore[misc]
                name, "gets no DICOM map")
        for kind in kinds
    ]  # fmt: skip
    for place, content in zip(places, contents):
        files.write_bytes(out / place, content)
    return places[0]


def overlay(
    source: Source, maps: np.ndarray, model: Model, series: str, number: int
) -> pydicom.Dataset:
    """Returns the map in colour over its film, as a Secondary Capture.

    Below the film stands, in its pixels, that it is not for diagnosis, by which model it is, and
    the values at which colour begins and is strongest.

    Args:
      maps: (h, w).
      series, number: of `Filing.next`.

    Source: DICOM PS3.3 A.8.1.
    """
    assert source.film is not None
    ends = f"{np.median(maps):.3g}, the median of this map, to {maps.max():.3g}, its highest value"
    lines = f"{CAUTION} {_name(model)}: colour from {ends}."
    pixels = painted(source.film, maps, source.region, lines)
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    made.SeriesInstanceUID, made.InstanceNumber = series, number
    made.Modality, made.ConversionType = "OT", "WSD"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.SourceImageSequence = [_reference(*instance) for instance in source.instances]
    made.PatientOrientation = None
    now = datetime.datetime.now()
    made.InstanceCreationDate, made.InstanceCreationTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    made.ContentDate, made.ContentTime = made.InstanceCreationDate, made.InstanceCreationTime
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    return _filed(made, source, model, "overlay")


def _reference(kind: str, instance: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, instance
    return item


def parametric_map(
    source: Source, maps: np.ndarray, model: Model, series: str, number: int
) -> pydicom.Dataset:
    """Returns the map as numbers with their place in the source, as a Parametric Map.

    Guarantee: each value, read back through its real world value mapping, differs from that of
    `maps` by at most half of (highest - lowest) / LEVELS, but for float64's rounding.

    Args:
      maps: (h, w), or (d, h, w).
      series, number: of `Filing.next`.

    Source: DICOM PS3.3 A.75, written by highdicom.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    planes = maps[None] if maps.ndim == 2 else maps
    stored, slope, low = _stepped(planes)
    steps = np.linalg.norm(source.affine[:3, :3], axis=0)
    axes = source.affine[:3, :3] / steps
    positions = source.affine[:3, 3] + np.arange(len(planes))[:, None] * source.affine[:3, 2]
    in_patient = highdicom.enum.CoordinateSystemNames.PATIENT
    made = highdicom.pm.ParametricMap(
        _stand_ins(source, positions[0]),
        stored,
        series_instance_uid=series,
        series_number=_NUMBERS["map"],
        sop_instance_uid=generate_uid(),
        instance_number=number,
        manufacturer="jaxfair",
        manufacturer_model_name="jaxfair",
        software_versions=jaxfair.__version__,
        device_serial_number=model.digest,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            highdicom.pm.RealWorldValueMapping(
                lut_label="anomaly",
                lut_explanation=f"anomaly, to half a step of {slope:.3g}",
                unit=codes.UCUM.NoUnits,
                value_range=(0, LEVELS),
                slope=slope,
                intercept=low,
            )
        ],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(window_center=LEVELS / 2, window_width=LEVELS)
        ],
        pixel_measures=highdicom.PixelMeasuresSequence(
            pixel_spacing=(steps[1], steps[0]),
            slice_thickness=steps[2],
            spacing_between_slices=steps[2],
        ),
        plane_orientation=highdicom.PlaneOrientationSequence(
            in_patient, [*axes[:, 0], *axes[:, 1]]
        ),
        plane_positions=[highdicom.PlanePositionSequence(in_patient, at) for at in positions],
        content_description=CAUTION,
    )
    _filed(made, source, model, "map")
    made.BurnedInAnnotation = "NO"  # whatever stands in the pixels of the source
    return made


def _stepped(planes: np.ndarray) -> tuple[np.ndarray, float, float]:
    """uint16 of the same shape, and the slope and intercept that give the values back."""
    values = planes.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    slope = (high - low) / LEVELS or 1.0
    return np.round((values - low) / slope).astype(np.uint16), slope, low


def _stand_ins(source: Source, start: np.ndarray) -> list[pydicom.Dataset]:
    """What highdicom asks of its sources: names, places and no person; that is added at the end."""
    found, frame = [], source.frame or generate_uid()
    for kind, instance in source.instances:
        one = pydicom.Dataset()
        for name in _EMPTY:
            setattr(one, name, None)
        one.StudyInstanceUID = source.elements.StudyInstanceUID
        one.SeriesInstanceUID, one.FrameOfReferenceUID = source.series, frame
        one.SOPClassUID, one.SOPInstanceUID = kind, instance
        one.Rows = one.Columns = 1
        one.ImagePositionPatient = [float(v) for v in np.round(start, 6)]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.SliceThickness = [1, 1], 1
        found.append(one)
    return found


def _filed(made: Any, source: Source, model: Model, kind: str) -> pydicom.Dataset:
    """Adds patient and study as the source has them, and what made it."""
    for name in _EMPTY:
        setattr(made, name, None)
    for name in COPIED:
        if name in source.elements:
            made[name] = source.elements[name]
    made.SeriesNumber = _NUMBERS[kind]
    made.SeriesDescription = f"jaxfair {_TITLES[kind]}, not for diagnosis"
    made.Manufacturer, made.ManufacturerModelName = "jaxfair", "jaxfair"
    made.SoftwareVersions, made.DeviceSerialNumber = jaxfair.__version__, model.digest
    made.ImageComments = CAUTION
    made.DerivationDescription = f"{CAUTION} Anomaly map of the model {_name(model)}."
    return made


def _name(model: Model) -> str:
    return str(model.about["name"])[:64]


def _content(made: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    with noted():  # what is odd in the source's header is as odd here, and was noted with the case
        pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()
