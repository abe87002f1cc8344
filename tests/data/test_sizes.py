"""A small file that declares gigabytes is refused by its declaration, before memory is taken."""

import gzip
import io
import re
import struct
import zipfile
import zlib

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from jaxfair.data import decoders, pixels, reading, sizes, volume
from jaxfair.data.sources.base import read_csv
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

FLAT = Stored(image_size=8, max_megabytes=4)
SOLID = Stored(volume=(4, 4, 4), window=(0, 4096), max_megabytes=4)
HUGE = 30_000
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def png(path):
    """A PNG of 30,000 x 30,000 pixels in some kilobytes: a row of zeros deflates to nothing."""
    squeeze = zlib.compressobj(9)
    rows = b"".join(squeeze.compress(bytes(HUGE + 1)) for _ in range(300)) + squeeze.flush()
    head = struct.pack(">2I5B", HUGE, HUGE, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")]
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
              for n, d in parts)  # fmt: skip
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header((HUGE, HUGE)) + bytes(2**20))


def packed_npz(path):
    """The header is honest; what the archive unpacks to is not."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header((8, 8)) + bytes(2**25))


def header(shape):
    text = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(text, about)
    return text.getvalue()


def npy(path):
    with open(path, "wb") as file:
        file.write(header((HUGE, HUGE)))
        file.truncate(HUGE * HUGE + file.tell())  # a hole, which takes no disk


def nifti(path):
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    raw = bytearray(image.to_bytes())
    raw[42:48] = struct.pack("<3h", HUGE, HUGE, 100)
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))


def wide_voxels(path):
    np.savez(path, values=np.zeros((4, 4, 4)) + np.arange(4), spacing=[1e6, 1e6, 1e6])


def thin_film(path):
    Image.fromarray(np.arange(20_000, dtype=np.uint8)[None]).save(path)


@pytest.mark.parametrize(
    "name, make",
    [("a.png", png), ("a.npz", npz), ("b.npz", packed_npz), ("a.npy", npy)],
)
def test_a_small_image_that_declares_gigabytes_is_refused_by_name(name, make, tmp_path):
    make(tmp_path / name)
    assert (tmp_path / name).stat().st_blocks * 512 < 2**20
    refused(tmp_path / name, FLAT, pixels.read_square)


@pytest.mark.parametrize(
    "name, make", [("a.nii", nifti), ("a.nii.gz", nifti), ("a.npz", npz), ("a.npy", npy)]
)
def test_a_small_volume_that_declares_gigabytes_is_refused_by_name(name, make, tmp_path):
    make(tmp_path / name)
    refused(tmp_path / name, SOLID, volume.read_volume)


def test_voxels_of_a_kilometre_are_refused_before_they_are_resampled(tmp_path):
    wide_voxels(tmp_path / "a.npz")
    how = Stored(volume=(4, 4, 4), spacing=(1, 1, 1), max_megabytes=4)
    refused(tmp_path / "a.npz", how, volume.read_volume)


def test_bars_around_a_thin_film_are_refused_before_they_are_drawn(tmp_path):
    thin_film(tmp_path / "a.png")
    refused(tmp_path / "a.png", Stored(image_size=8, resize="pad", max_megabytes=4))


@pytest.mark.parametrize("elements", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 2**30}])
def test_a_dicom_header_that_declares_gigabytes_is_refused(elements, tmp_path, write_dicom):
    refused(write_dicom(tmp_path / "a.dcm", RAMP, **elements), FLAT)


@pytest.mark.parametrize(
    "syntax, kind", [(JPEG2000Lossless, "JPEG2000"), (JPEGBaseline8Bit, "JPEG")]
)
def test_a_compressed_frame_that_declares_gigabytes_is_refused(syntax, kind, tmp_path, write_dicom):
    frame = bytearray(compressed(kind))
    assert decoders.stream_shape(bytes(frame)) == (64, 64, 1)
    if kind == "JPEG":
        at = frame.index(b"\xff\xc0") + 5
        frame[at : at + 4] = struct.pack(">2H", HUGE, HUGE)
    else:
        at = frame.index(b"\xff\x4f\xff\x51") + 8
        frame[at : at + 8] = struct.pack(">2I", HUGE, HUGE)
    path = write_dicom(tmp_path / "a.dcm", RAMP.astype(np.uint8))
    rewritten(path, bytes(frame), syntax)
    refused(path, FLAT)


def compressed(kind):
    text = io.BytesIO()
    picture = Image.fromarray((RAMP / 16).astype(np.uint8))
    picture.save(text, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    return text.getvalue()


def rewritten(path, frame, syntax, **elements):
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def test_a_deflated_dicom_file_that_unpacks_to_gigabytes_is_refused(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", RAMP, PixelData=bytes(2**25))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = decoders.DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    assert path.stat().st_size < 2**18
    refused(path, FLAT)


def test_a_file_that_is_itself_above_the_limit_is_not_read(tmp_path, write_dicom):
    refused(write_dicom(tmp_path / "a.dcm", RAMP, PixelData=bytes(5 * 2**20)), FLAT)


def test_a_series_is_weighed_as_a_whole(tmp_path, write_dicom):
    folder = tmp_path / "series"
    folder.mkdir()
    for i in range(9):
        write_dicom(folder / f"{i}.dcm", np.tile(RAMP, (6, 6)))
    refused(folder, SOLID, volume.read_volume)


def test_the_bytes_of_a_series_are_weighed_before_they_are_read(tmp_path, write_dicom):
    folder = tmp_path / "series"
    folder.mkdir()
    for i in range(5):
        write_dicom(folder / f"{i}.dcm", RAMP, PixelData=bytes(2**20))
    refused(folder, SOLID, volume.read_volume)


@pytest.mark.parametrize("how", [FLAT, SOLID])
def test_what_is_within_the_limit_is_read(how, tmp_path):
    shape = (16, 16, 16) if how.volume else (64, 64)
    np.save(tmp_path / "a.npy", np.arange(4096).reshape(shape).astype(np.uint16))
    read = volume.read_volume if how.volume else pixels.read_square
    [(image, header)] = reading.read_files(read, [pixels.Job(str(tmp_path / "a.npy"), how)], how)
    assert image is not None, header


@pytest.mark.parametrize("name", ["table.csv.gz", "table.csv"])
def test_a_packed_table_that_unpacks_to_gigabytes_is_refused_whatever_its_name(tmp_path, name):
    path = tmp_path / name
    with gzip.open(path, "wt") as file:
        file.write("image,patient\n" + "a.png,p1\n" * 600_000)
    assert path.stat().st_size < 2**16
    with sizes.at_most(4), pytest.raises(InputError, match=r"max_megabytes is 4; raise it"):
        read_csv(path, ["image"])
    with sizes.at_most(6):
        assert len(read_csv(path, ["image"])) == 600_000
    path.write_bytes(b"no gzip at all")
    with pytest.raises(InputError, match="lacks the column image"):
        read_csv(path, ["image"])


def test_an_excel_file_that_unpacks_to_gigabytes_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(2**23))
    with sizes.at_most(4), pytest.raises(InputError, match=r"max_megabytes is 4; raise it"):
        read_csv(tmp_path / "a.xlsx", ["image"])


def test_a_higher_limit_lets_a_large_file_in(tmp_path):
    picture = np.zeros((1200, 1200), np.uint8)
    picture[:600] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    refused(tmp_path / "a.png", FLAT)
    how = Stored(image_size=8, max_megabytes=6)
    [(image, _)] = reading.read_files(
        pixels.read_square, [pixels.Job(str(tmp_path / "a.png"), how)], how
    )
    assert image[:, 0, 0].tolist() == [255] * 4 + [0] * 4


def refused(path, how, read=pixels.read_square):
    """By the declaration: a process that may hold 32 MB would say so if it had begun."""
    [(image, header)] = reading.read_files(read, [pixels.Job(str(path), how)], how)
    assert image is None and re.search("max_megabytes is 4[;,].* raise it", header["reason"]), (
        header
    )
    assert str(path.parent) not in header["reason"]


def test_the_limit_is_that_of_the_innermost_block():
    with sizes.at_most(2), sizes.at_most(1):
        assert sizes.limit() == 1
        with pytest.raises(InputError, match="513 x 512"):
            sizes.check("a", (513, 512))
    assert sizes.limit() == sizes.DEFAULT
    with pytest.raises(InputError, match="declares the shape"):
        sizes.check("a", (-1, -1))


@pytest.mark.parametrize("name, value", [("max_megabytes", 0), ("max_seconds", float("nan"))])
def test_a_limit_that_is_none_is_refused(name, value):
    with pytest.raises(InputError, match=rf"data.{name} is"):
        Stored(**{name: value})
    assert Stored(**{name: 7}).identity == {"image_size": 128, name: 7}


def test_a_zip_of_other_files_is_to_be_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as packed:
        packed.writestr("slice.dcm", b"DICM")
    with pytest.raises(InputError, match="A zip of other files has to be unpacked first"):
        pixels.open_stack(str(tmp_path / "series.zip"))


def test_an_npy_whose_size_overflows_is_one_sentence_without_a_warning(tmp_path, recwarn):
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 9999999999), }"
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head.ljust(117) + b"\n")
    with pytest.raises(InputError, match="is no npy or npz file that can be read"):
        pixels.open_stack(str(path))
    assert not recwarn.list
