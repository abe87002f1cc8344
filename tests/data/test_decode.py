import csv
import hashlib
import pathlib

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels import apply_modality_lut, apply_windowing

from jaxfair.data import decode, greys, pixels
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

ZOO = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom-zoo"
needs_zoo = pytest.mark.skipif(not ZOO.is_dir(), reason="the DICOM zoo is not here")
GPL_ONLY = {"JPGExtended.dcm"}  # 12-bit JPEG: decoded by the extra jpeg-gpl alone


def zoo_rows():
    if not ZOO.is_dir():
        return []
    with open(ZOO / "files.csv") as file:
        return list(csv.DictReader(file))


@needs_zoo
def test_40_of_the_41_decodable_zoo_files_decode_with_the_base_decoders():
    decoded = set()
    for row in zoo_rows():
        try:
            picture, header = decode.decode(ZOO / row["file"])
        except InputError as error:
            assert row["file"] in str(error) and len(str(error)) < 400
            continue
        decoded.add(row["file"])
        assert picture.dtype == np.float32 and 0 <= picture.min() < picture.max() <= 1
        assert (header["age_text"], header["sex_text"]) == (row["age"], row["sex"])
    expected = {row["file"] for row in zoo_rows() if row["decoded"] == "1"}
    assert expected - decoded <= GPL_ONLY and decoded <= expected


@needs_zoo
@pytest.mark.filterwarnings("ignore:The pixel data is")
def test_zoo_pixels_are_exact_where_lossless_and_within_two_levels_where_lossy():
    lossy = {"RG1_J2KI.dcm", "RG3_J2KI.dcm", "MR2_J2KI.dcm", "JPEG2000.dcm"}
    lossy |= {"examples_ybr_color.dcm"}
    for row in zoo_rows():
        if row["decoded"] != "1" or row["file"] in GPL_ONLY:
            continue
        raw = decode.raw_pixels(decode.read_dicom(ZOO / row["file"]))
        if row["file"] in lossy:
            assert abs(float(raw.min()) - float(row["min"])) <= 2
            assert abs(float(raw.max()) - float(row["max"])) <= 2
            assert abs(raw.mean(dtype=float) - float(row["mean"])) <= 0.5
        else:
            little = np.ascontiguousarray(raw).astype(raw.dtype.newbyteorder("<"))
            assert hashlib.sha256(little.tobytes()).hexdigest()[:16] == row["sha256"], row["file"]


@needs_zoo
def test_the_same_pixels_in_seven_transfer_syntaxes_become_the_same_picture():
    names = ["", "_implicit", "_bigendian", "_RLE", "_jp2klossless", "_jpeg_ls_lossless", "_padded"]
    pictures = [decode.decode(ZOO / f"MR_small{name}.dcm")[0] for name in names]
    assert all(np.array_equal(pictures[0], other) for other in pictures[1:])


@needs_zoo
def test_a_real_scan_is_as_bright_in_lossy_as_in_lossless_compression():
    """Lossy compression rings below 0, which is no reason to put black at -256."""
    lossless, lossy = (decode.decode(ZOO / name)[0] for name in ("JPEG-LL.dcm", "JPEG2000.dcm"))
    assert abs(lossless.mean() - lossy.mean()) < 0.002
    assert np.abs(lossless - lossy).mean() < 0.02


@needs_zoo
def test_a_real_monochrome1_film_is_inverted():
    dataset = decode.read_dicom(ZOO / "RG3_J2KR.dcm")
    raw = decode.raw_pixels(dataset).astype(float)
    picture, _ = decode.decode(ZOO / "RG3_J2KR.dcm")
    assert np.corrcoef(raw.ravel(), picture.ravel())[0, 1] < -0.9


@needs_zoo
def test_our_window_agrees_with_pydicom_on_real_files():
    for name in ("MR_small.dcm", "MR2_J2KR.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm"):
        dataset = decode.read_dicom(ZOO / name)
        theirs = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        bits, slope = dataset.BitsStored, float(dataset.get("RescaleSlope", 1))
        low = -(2 ** (bits - 1)) if dataset.PixelRepresentation else 0
        low = low * slope + float(dataset.get("RescaleIntercept", 0))
        ours, _ = greys.grey(decode.raw_pixels(dataset), dataset)
        np.testing.assert_allclose(ours, (theirs - low) / (2**bits - 1) / slope, atol=2e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_every_window_function_agrees_with_pydicom(function):
    values = np.arange(0, 4096, 7, dtype=np.uint16)
    dataset = pydicom.Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored = "MONOCHROME2", 12
    dataset.PixelRepresentation, dataset.VOILUTFunction = 0, function
    dataset.WindowCenter, dataset.WindowWidth = 1800, 900
    ours = greys.windowed(values, 1800, 900, function)
    np.testing.assert_allclose(ours, apply_windowing(values, dataset) / 4095, atol=2e-6)


def test_a_window_of_width_one_is_a_single_step():
    assert greys.windowed([9.5, 9.6, 10], 10, 1).tolist() == [0, 1, 1]


def test_a_window_too_narrow_for_the_standard_is_refused_with_its_width():
    with pytest.raises(InputError, match="window width 0 is too small for LINEAR"):
        greys.windowed(np.zeros(2), 10, 0)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"]
)
def test_a_number_of_the_header_that_is_not_finite_is_refused(tmp_path, write_dicom, name, wrong):
    header = {"WindowCenter": "100", "WindowWidth": "200"} | {name: wrong}
    path = write_dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.uint8).reshape(8, 8), **header)
    with pytest.raises(InputError, match=f"its {name} is {wrong}, and numbers are wanted"):
        decode.decode(path)


@pytest.mark.parametrize("center, width", [(np.nan, 100), (100, np.nan), (100, np.inf)])
def test_a_window_that_is_not_finite_is_refused(center, width):
    with pytest.raises(InputError, match="window"):
        greys.windowed(np.zeros(2), center, width)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": "0.5", "WindowWidth": "2"}])
def test_floating_point_pixels_that_are_not_finite_are_refused(
    tmp_path, write_dicom, wrong, window
):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    picture, _ = decode.decode(write_float(write_dicom, tmp_path / "a.dcm", values))
    np.testing.assert_allclose(picture, values, atol=1e-6)
    values[3, 3] = wrong
    with pytest.raises(InputError, match="pixels that are not finite"):
        decode.decode(write_float(write_dicom, tmp_path / "a.dcm", values, **window))


def write_float(write_dicom, path, values, **elements):
    """Writes Float Pixel Data, which has no Pixel Data beside it."""
    write_dicom(path, values, FloatPixelData=values.tobytes(), **elements)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    return path


def test_one_wild_floating_point_pixel_does_not_darken_the_others(tmp_path, write_dicom):
    values = np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)
    spoilt = values.copy()
    spoilt[9, 9] = 1e6
    plain, _ = decode.decode(write_float(write_dicom, tmp_path / "a.dcm", values))
    other, _ = decode.decode(write_float(write_dicom, tmp_path / "b.dcm", spoilt))
    assert other[9, 9] == 1 and np.abs(other - plain).max() == np.abs(other - plain)[9, 9]


def test_monochrome1_is_the_mirror_image_of_monochrome2(tmp_path, write_dicom):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    plain, _ = decode.decode(write_dicom(tmp_path / "a.dcm", pixels))
    other, _ = decode.decode(
        write_dicom(tmp_path / "b.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    )
    np.testing.assert_array_equal(plain, pixels / np.float32(255))
    np.testing.assert_array_equal(other, 1 - plain)


def test_rescale_comes_before_the_window(tmp_path, write_dicom):
    pixels = np.array([[0, 1000], [2000, 4000]], np.uint16)
    path = write_dicom(
        tmp_path / "a.dcm", pixels, RescaleSlope="0.5", RescaleIntercept="-1000",
        WindowCenter="0.5", WindowWidth="2001",
    )  # fmt: skip
    picture, _ = decode.decode(path)
    np.testing.assert_allclose(picture, [[0, 0.25], [0.5, 1]], atol=1e-6)


def test_twelve_bits_declared_as_sixteen_still_use_the_grey_scale(tmp_path, write_dicom):
    pixels = np.array([[0, 4000], [2000, 100]], np.uint16)
    picture, _ = decode.decode(write_dicom(tmp_path / "a.dcm", pixels))
    np.testing.assert_allclose(picture, pixels / 4095, atol=1e-6)


def test_a_file_without_contrast_is_refused(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "flat.dcm", np.full((8, 8), 7, np.uint8))
    with pytest.raises(InputError, match="shows nothing: all its pixels are equal"):
        decode.decode(path)


@pytest.mark.parametrize(
    "content, reason",
    [(b"", "no DICOM file"), (b"not a film" * 50, "no DICOM file"), (None, "cannot be read")],
)
def test_what_is_no_dicom_file_is_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "x.dcm"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        decode.decode(path)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_cut_off_file_is_refused(tmp_path, write_dicom, share):
    path = write_dicom(tmp_path / "a.dcm", np.arange(4096, dtype=np.uint8).reshape(64, 64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"a\.dcm"):
        decode.decode(path)


def test_several_frames_decode_but_are_no_radiograph(tmp_path, write_dicom):
    frames = np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8)
    path = write_dicom(tmp_path / "a.dcm", frames)
    assert decode.decode(path)[0].shape == (3, 8, 8)
    stored, header = pixels.read_square(pixels.Job(str(path), Stored(image_size=8)))
    assert stored is None and header["reason"] == (
        "a.dcm holds 3 frames, a radiograph has one; save the one to be read as a file of its own."
    )


def test_a_plain_number_as_age_is_read_as_written_without_a_warning(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.uint8).reshape(8, 8), age="148")
    assert decode.decode(path)[1]["age_text"] == "148"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 24), st.integers(1, 24))
@settings(deadline=None, max_examples=40)
def test_area_averaging_is_exact_for_any_ratio(h, w, height, width):
    picture = np.random.default_rng(h * 41 + w).random((h, w))
    fine = np.kron(picture, np.ones((height, width)))  # h * height rows: both grids divide it
    exact = fine.reshape(height, h, width, w).mean((1, 3))
    np.testing.assert_allclose(decode.area_resize(picture, height, width), exact, atol=2e-6)


def test_a_tall_film_is_cut_to_its_middle_square():
    picture = np.arange(12.0).reshape(6, 2)
    np.testing.assert_array_equal(decode.square(picture), picture[2:4])
