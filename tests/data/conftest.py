"""A small phantom, and DICOM files written by hand."""

import pathlib

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from jaxfair.data.sources import rsna
from jaxfair.phantom import write


@pytest.fixture(scope="session")
def small_phantom(tmp_path_factory):
    """Root of a phantom of 60 films, 64 px."""
    config = write.PhantomConfig(n_images=60, pixels=64, seed=3)
    return write.write_phantom(config, tmp_path_factory.mktemp("phantom") / "p", progress=False)


@pytest.fixture
def write_dicom():
    """write_dicom(path, pixels, **elements) writes an uncompressed monochrome file."""

    def write(path, pixels, *, age="43", bits=None, **elements):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
        dataset.PatientSex, dataset.ViewPosition, dataset.Modality = "F", "PA", "CR"
        dataset.add(
            pydicom.DataElement(0x00101010, "AS", age, validation_mode=pydicom.config.IGNORE)
        )
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.Rows, dataset.Columns = pixels.shape[-2:]
        if pixels.ndim == 3:
            dataset.NumberOfFrames = len(pixels)
        dataset.BitsAllocated = 8 * pixels.itemsize
        dataset.BitsStored = bits or dataset.BitsAllocated
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", pixels.tobytes())
        for name, value in elements.items():
            setattr(dataset, name, value)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        return pathlib.Path(path)

    return write


@pytest.fixture
def rsna_root(tmp_path, write_dicom):
    """rsna_root({image_id: class}, pixels=..., **header) writes a root in the RSNA layout."""

    def make(findings, *, headers=None, mapping=None):
        root = tmp_path / "root"
        (root / rsna.IMAGES).mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name in findings:
            pixels = rng.integers(0, 256, (32, 32)).astype(np.uint8)
            write_dicom(root / rsna.IMAGES / f"{name}.dcm", pixels, **(headers or {}).get(name, {}))
        write_tables(root, findings)
        if mapping is not None:
            text = [f'{{"subset_img_id": "{i}", "img_id": "{m}"}}' for i, m in mapping.items()]
            (root / rsna.MAPPING).write_text(f"[{', '.join(text)}]")
        return root

    return make


def write_tables(root, findings):
    ids, classes = list(findings), list(findings.values())
    targets = [int(c == rsna.OPACITY) for c in classes]
    pd.DataFrame({"patientId": ids, "class": classes}).to_csv(root / rsna.CLASSES, index=False)
    pd.DataFrame({"patientId": ids, "x": "", "Target": targets}).to_csv(
        root / rsna.LABELS, index=False
    )


@pytest.fixture
def series(tmp_path, write_dicom):
    """series(name, heights) writes a folder of slices, files in no order of height."""

    def make(name="series", heights=range(5), **header):
        folder = tmp_path / name
        folder.mkdir()
        for i, height in enumerate(reversed(list(heights))):
            pixels = (np.arange(42).reshape(6, 7) + 50 * height).astype(np.uint16)
            elements = {
                "ImagePositionPatient": [0, 0, 2.5 * height],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [0.8, 0.7],
                "RescaleSlope": 2,
                "RescaleIntercept": -1024,
                "SeriesInstanceUID": "1.2.9",
                "PatientSex": "M",
            }
            write_dicom(folder / f"{i}.dcm", pixels, age="043Y", **elements | header)
        return folder

    return make
