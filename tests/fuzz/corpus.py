"""Whole files of every format that is read, small and drawn, and public ones where they are."""

import gzip
import io
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

__all__ = ["TURNS", "Sample", "made", "public", "sample_at", "samples", "write_images"]

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
TURNS = ("dcm", "png", "dcm", "npz", "dcm", "jpg", "nii", "dcm", "gz", "npy", "dcm", "csv")
"""In which turn the kinds of files are damaged: DICOM has the most that can be wrong."""

LARGEST = 300_000
"""Bytes of a public file; a larger one takes the time of many small ones."""


class Sample(NamedTuple):
    """A whole file: its name, its bytes, and the source whose reader takes it."""

    name: str
    content: bytes
    source: str


def samples() -> list[Sample]:
    """All of them, in an order that depends on nothing but which public files there are."""
    return made() + public()


def made() -> list[Sample]:
    """Those that are drawn here, each of which is read as it is."""
    return [*_rasters(), *_arrays(), *_dicoms(), *_volumes(), _table()]


def public() -> list[Sample]:
    """Those that lie in the folder of shared data, if there is one; some are broken already."""
    return [
        Sample(path.name, path.read_bytes(), "volumes" if "nii" in path.name else "table")
        for folder in ("dicom-zoo", "cases")
        for path in sorted((SHARED / folder).glob("*"))
        if path.suffix in (".dcm", ".png", ".npz", ".gz") and path.stat().st_size < LARGEST
    ]


def sample_at(place: int, corpus: list[Sample]) -> Sample:
    """The one that is damaged as number `place`: kinds in TURNS, samples of a kind in order."""
    kind = TURNS[place % len(TURNS)]
    mine = [sample for sample in corpus if sample.name.endswith(f".{kind}")]
    turn = place // len(TURNS) * TURNS.count(kind) + TURNS[: place % len(TURNS)].count(kind)
    return mine[turn % len(mine)]


def write_images(folder: pathlib.Path) -> None:
    """Writes the images that the table of `samples` names."""
    for i in range(20):
        Image.fromarray((_picture() / 16).astype(np.uint8)).save(folder / f"i{i}.png")


def _picture(kind: str = "uint16") -> np.ndarray:
    y, x = np.mgrid[:48, :40]
    noise = np.random.default_rng(0).integers(0, 64, (48, 40))
    return ((x * 61 + y * 17 + noise) % 4096).astype(kind)


def _saved(save: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def _rasters() -> list[Sample]:
    grey = Image.fromarray((_picture() / 16).astype(np.uint8))
    kinds = {
        "grey.png": (grey, "PNG", {}),
        "deep.png": (Image.fromarray(_picture()), "PNG", {}),
        "colour.png": (grey.convert("RGB"), "PNG", {}),
        "clear.png": (grey.convert("RGBA"), "PNG", {}),
        "palette.png": (grey.convert("P"), "PNG", {}),
        "woven.png": (grey.resize((200, 200)), "PNG", {"optimize": True}),
        "grey.jpg": (grey, "JPEG", {}),
        "colour.jpg": (grey.convert("RGB"), "JPEG", {"progressive": True}),
    }
    return [
        Sample(name, _saved(lambda f, i=i, k=k, o=o: i.save(f, k, **o)), "table")
        for name, (i, k, o) in kinds.items()
    ]


def _arrays() -> list[Sample]:
    return [
        Sample("one.npy", _saved(lambda f: np.save(f, _picture())), "table"),
        Sample("one.npz", _saved(lambda f: np.savez(f, image=_picture())), "table"),
        Sample("packed.npz", _saved(lambda f: np.savez_compressed(f, image=_picture())), "table"),
    ]


def _volumes() -> list[Sample]:
    values = np.stack([_picture("int16") + i for i in range(6)])
    affine = np.diag([-1.5, 1.0, 2.0, 1.0])
    nifti = nibabel.Nifti1Image(values, affine).to_bytes()
    array = {"values": values, "spacing": [2.0, 1.0, 1.5]}
    return [
        Sample("body.nii", nifti, "volumes"),
        Sample("body.nii.gz", gzip.compress(nifti, mtime=0), "volumes"),
        Sample("body.npz", _saved(lambda f: np.savez_compressed(f, **array)), "volumes"),
        Sample("body.npy", _saved(lambda f: np.save(f, values)), "volumes"),
    ]


def _dicoms() -> list[Sample]:
    syntaxes = {
        "explicit": ExplicitVRLittleEndian,
        "implicit": ImplicitVRLittleEndian,
        "big": ExplicitVRBigEndian,
        "deflated": DeflatedExplicitVRLittleEndian,
        "rle": RLELossless,
        "jpeg": JPEGBaseline8Bit,
        "j2k": JPEG2000Lossless,
    }
    return [Sample(f"{name}.dcm", _dicom(syntax), "table") for name, syntax in syntaxes.items()]


def _dicom(syntax: pydicom.uid.UID) -> bytes:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    dataset.PatientID, dataset.PatientSex, dataset.PatientAge = "p1", "F", "043Y"
    dataset.ViewPosition, dataset.Modality = "PA", "CR"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    flat = syntax in (JPEGBaseline8Bit, JPEG2000Lossless)
    pixels = (_picture() / 16).astype(np.uint8) if flat else _picture()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 8 * pixels.itemsize
    dataset.BitsStored = 8 if flat else 12
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    if syntax == ExplicitVRBigEndian:
        pixels = pixels.byteswap()
    dataset.add_new("PixelData", "OB" if flat else "OW", pixels.tobytes())
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    elif flat:
        _encapsulate(dataset, pixels, syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    return _saved(lambda file: pydicom.dcmwrite(file, dataset, enforce_file_format=True))


def _encapsulate(dataset: pydicom.Dataset, pixels: np.ndarray, syntax: pydicom.uid.UID) -> None:
    kind, options = ("JPEG2000", {"no_jp2": True}) if syntax == JPEG2000Lossless else ("JPEG", {})
    frame = _saved(lambda file: Image.fromarray(pixels).save(file, kind, **options))
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True


def _table() -> Sample:
    rows = ["image,patient,sex,age,view,label"]
    rows += [f"i{i}.png,p{i // 2},{'FM'[i % 2]},{20 + i},PA,{i % 3 % 2}" for i in range(20)]
    return Sample("table.csv", ("\n".join(rows) + "\n").encode(), "csv")
