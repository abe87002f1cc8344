"""Files are read in other processes: what one does there is its own reason."""

import io
import pathlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit

from jaxfair.data import decoders, pixels, reading
from jaxfair.data.stored import Stored
from tests.data import hostile

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
HOW = Stored(image_size=16, max_seconds=20)
DEATHS = ("ended the process", "took more than", "takes more memory")


def read(paths, how=HOW, read_pixels=pixels.read_square):
    jobs = [pixels.Job(str(path), how) for path in paths]
    return list(reading.read_files(read_pixels, jobs, how))


def j2k(path, write_dicom, photometric):
    """A grey JPEG 2000 film whose header may say otherwise."""
    grey = (np.arange(64 * 64).reshape(64, 64) % 251).astype(np.uint8)
    path = write_dicom(path, grey, PhotometricInterpretation=photometric)
    dataset, frame = pydicom.dcmread(path), io.BytesIO()
    Image.fromarray(grey).save(frame, "JPEG2000", no_jp2=True)
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = encapsulate([frame.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_grey_jpeg_2000_film_called_colour_ends_no_process(tmp_path, write_dicom):
    """GDCM aborts on it."""
    names = ["MONOCHROME2", "YBR_FULL", "YBR_RCT", "RGB", "PALETTE COLOR"]
    paths = [j2k(tmp_path / f"{name}.dcm", write_dicom, name) for name in names]
    found = read(paths)
    assert found[0][0] is not None
    for image, header in found[1:]:
        assert image is not None or not any(death in header["reason"] for death in DEATHS), header
    assert found[1][0] is None and "YBR_FULL.dcm cannot be decoded" in found[1][1]["reason"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data is not here")
def test_no_public_file_ends_its_process():
    paths = [*sorted((SHARED / "dicom-zoo").glob("*.dcm")), *sorted((SHARED / "cases").glob("*"))]
    for path, (image, header) in zip(paths, read(paths), strict=True):
        assert image is not None or "cannot be read: " not in header["reason"], (path, header)


def test_gdcm_is_asked_for_nothing_that_another_library_reads(tmp_path, write_dicom, monkeypatch):
    asked = []

    def spy(dataset, decoding_plugin=""):
        asked.append(decoding_plugin)
        raise ValueError("no")

    monkeypatch.setattr(decoders, "pixel_array", spy)
    dataset = pydicom.dcmread(j2k(tmp_path / "a.dcm", write_dicom, "MONOCHROME2"))
    with pytest.raises(ValueError, match="no"):
        decoders.decompressed(dataset)
    assert asked == ["pylibjpeg", "pillow"]
    alone = [uid for uid in SYNTAXES if set(get_decoder(uid).available_plugins) == {"gdcm"}]
    for uid in alone:
        asked.clear()
        dataset.file_meta.TransferSyntaxUID = uid
        with pytest.raises(ValueError, match="no"):
            decoders.decompressed(dataset)
        assert asked == ["gdcm"]


SYNTAXES = [UID("1.2.840.10008.1.2.4.70"), UID("1.2.840.10008.1.2.4.80")]


def test_baseline_jpeg_goes_to_pillow_first(tmp_path, write_dicom, monkeypatch):
    asked = []
    monkeypatch.setattr(
        decoders, "pixel_array", lambda dataset, decoding_plugin="": asked.append(decoding_plugin)
    )
    dataset = pydicom.dcmread(j2k(tmp_path / "a.dcm", write_dicom, "MONOCHROME2"))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    decoders.decompressed(dataset)
    assert asked == ["pillow"]


def test_a_file_that_hangs_is_set_aside_by_name_after_the_time_that_is_configured(tmp_path):
    how = Stored(image_size=16, max_seconds=1.5)
    found = read([tmp_path / "good-1.dcm", tmp_path / "hang-1.dcm"], how, hostile.read_pixels)
    assert found[0][0].shape == (16, 16, 1)
    assert found[1] == (
        None,
        {"reason": "hang-1.dcm cannot be read: it took more than 1.5 s (data.max_seconds)."},
    )


def test_a_file_takes_at_most_the_memory_of_a_process(tmp_path):
    how = Stored(image_size=16, max_megabytes=16)
    found = read([tmp_path / "memory-1.dcm", tmp_path / "good-1.dcm"], how, hostile.read_pixels)
    assert found[1][0] is not None
    assert found[0][1]["reason"] == (
        "memory-1.dcm cannot be read: it takes more memory than a process for decoding may have "
        "(data.max_megabytes)."
    )


def test_a_refusal_of_a_source_is_its_own_sentence(tmp_path):
    [(_, header)] = read([tmp_path / "refuse-1.dcm"], HOW, hostile.read_pixels)
    assert header["reason"] == f"{tmp_path}/refuse-1 is no image; replace it."


def test_a_stack_that_is_mapped_does_not_count_as_memory(tmp_path):
    """A file of 3 GB, mostly a hole, in a process that may have 128 MB."""
    shape, path = (3 * 2**10, 2**10, 2**10), tmp_path / "stack.npy"
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        file.truncate(start + np.prod(shape))
        file.seek(start + 5 * 2**20)
        file.write(bytes(range(256)) * 2**12)
    how = Stored(image_size=16, max_megabytes=16)
    jobs = [pixels.Job(str(path), how, place) for place in (5, 6)]
    [(image, _), (_, refused)] = reading.read_files(pixels.read_square, jobs, how)
    assert image is not None and "shows nothing" in refused["reason"]
