"""DICOM films and series written by hand, of people who do not exist."""

import warnings

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

__all__ = ["write_film", "write_series"]

WHO = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": "Müller^Erika",
    "PatientID": "4711",
    "PatientBirthDate": "19700203",
    "PatientSex": "F",
    "PatientAge": "055Y",
    "StudyDate": "20260102",
    "AccessionNumber": "A-17",
    "StudyDescription": "Thorax",
    "OperatorsName": "Schmidt^Anna",
    "InstitutionName": "Haus am See",
    "Modality": "DX",
    "ViewPosition": "PA",
    "ImagerPixelSpacing": [0.2, 0.3],
    "PatientOrientation": ["L", "F"],
    "BurnedInAnnotation": "YES",
    "PhotometricInterpretation": "MONOCHROME2",
}


def write_film(path, pixels=None, **changes):
    """Writes a film and returns its dataset; a change to None leaves the element out."""
    if pixels is None:
        levels = np.random.default_rng(0).integers(0, 256, (40, 60))
        pixels = levels.astype(np.uint8)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    about = WHO | {n: generate_uid() for n in ("StudyInstanceUID", "SeriesInstanceUID",
                                               "SOPInstanceUID")}  # fmt: skip
    for name, value in (about | changes).items():
        if value is not None:
            tag = pydicom.datadict.tag_for_keyword(name)
            mode = pydicom.config.IGNORE
            vr = pydicom.datadict.dictionary_VR(tag).removesuffix(" or SS")
            dataset.add(pydicom.DataElement(tag, vr, value, validation_mode=mode))
    dataset.SamplesPerPixel = 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", pixels.tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is wrong on purpose
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or "1.2.3"
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return dataset


def write_series(folder, volume, spacing=(2.5, 0.8, 0.7), start=(-10.0, -20.0, 30.0), turn=None):
    """Writes (d, h, w) uint16 as slices and returns their datasets, the lowest first.

    Args:
      turn: directions of rows and columns, to left, back and head; those of an axial slice.
    """
    row, column = np.asarray(turn or ((1, 0, 0), (0, 1, 0)), float)
    across = np.cross(row, column)
    common = {
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "Modality": "CT",
        "ImageOrientationPatient": [float(v) for v in (*row, *column)],
        "PixelSpacing": [spacing[1], spacing[2]],
    }
    return [
        write_film(
            folder / f"{len(volume) - k}.dcm",
            plane.astype(np.uint16),
            ImagePositionPatient=[float(v) for v in np.asarray(start) + k * spacing[0] * across],
            **common,
        )
        for k, plane in enumerate(volume)
    ]
