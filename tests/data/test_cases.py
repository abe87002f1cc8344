"""Small files, each with one kind of fault that files of hospitals have, and what comes of them."""

import pathlib
import zipfile

import numpy as np
import pytest

from jaxfair.data import decode, pixels, volume
from jaxfair.data.stored import Stored

CASES = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the folder of cases is not here")

READ = [
    "IM000001",
    "one_hot_pixel.dcm",
    "rescale_empty.dcm",
    "rgb16_12bit.png",
    "rgb_12_in_16.dcm",
    "voi_lut_16_declared_12_used.dcm",
    "voi_lut_empty_with_window.dcm",
    "window_0_0.dcm",
]
REFUSED = {
    "gdcm_abort_photometric.dcm": "cannot be decoded",
    "m132_j.npz": "no npy or npz file that can be read",
    "m168_j.npz": "no npy or npz file that can be read",
    "slope_nan.dcm": "its RescaleSlope is nan",
}
SERIES = ["ax", "prone", "flipy", "dd", "ds"]
VOLUME = {"volume": (12, 16, 20), "window": (-500.0, 1500.0)}


def read(path, **fields):
    return pixels.read_square(pixels.Job(str(path), Stored(image_size=64, **fields)))


def read_volume(path, **fields):
    return volume.read_volume(pixels.Job(str(path), Stored(**VOLUME | fields)))


def unpacked(name, folder):
    zipfile.ZipFile(CASES / f"series_{name}.zip").extractall(folder)
    return folder


@needs_cases
@pytest.mark.parametrize("name", READ)
def test_the_ramp_has_the_same_grey_in_every_case(name):
    image, header = read(CASES / name)
    assert image is not None, header["reason"]
    assert abs(image.mean() - 127) < 1.5 and (image.min(), image.max()) == (0, 255)


@needs_cases
def test_declared_padding_is_black_and_takes_no_part():
    image, _ = read(CASES / "padding_65535.dcm")
    stored = decode.raw_pixels(decode.read_dicom(CASES / "padding_65535.dcm"))
    expected = np.where(stored == 65535, 0, np.round(stored / 4095 * 255))
    np.testing.assert_array_equal(image[..., 0], expected)


@needs_cases
@pytest.mark.parametrize("name, reason", REFUSED.items())
def test_what_cannot_be_read_is_set_aside_with_the_reason(name, reason):
    image, header = read(CASES / name)
    assert image is None and reason in header["reason"] and name in header["reason"]


@needs_cases
def test_transparency_is_laid_over_black_and_said():
    image, header = read(CASES / "rgba_transparent.png", channels=3)
    assert abs(image.mean() - 127.5 * 223 / 255) < 20 and image.min() == 0
    assert "transparency laid over black" in header["remarks"]


@needs_cases
@pytest.mark.parametrize("name", SERIES)
def test_a_series_lies_as_the_oriented_volume_whichever_way_it_was_taken(name, tmp_path):
    expected, _ = read_volume(CASES / "lps.nii.gz")
    image, header = read_volume(unpacked(name, tmp_path))
    assert image is not None, header["reason"]
    np.testing.assert_array_equal(image, expected)


@needs_cases
@pytest.mark.parametrize(
    "path, reason",
    [
        ("series_mixo.zip", "slices of several orientations"),
        ("none.nii.gz", "does not say how it lies"),
        ("bigzoom.nii.gz", "declares 12 x 16 x 20000000 values"),
    ],
)
def test_volumes_without_one_plausible_geometry_are_refused(path, reason, tmp_path):
    found = unpacked("mixo", tmp_path) if path.endswith("zip") else CASES / path
    image, header = read_volume(found, spacing=(1.0, 1.0, 1.0))
    assert image is None and reason in header["reason"]
