"""A folder of DICOM slices to one volume."""

import numpy as np
import pydicom
import pytest

from jaxfair.data import volume
from jaxfair.errors import InputError


def test_a_dicom_series_is_sorted_rescaled_and_measured(series):
    values, spacing, header = volume.read_values(series())
    expected = 2.0 * (np.arange(42).reshape(6, 7) + 50 * np.arange(5)[:, None, None]) - 1024
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(spacing, (2.5, 0.8, 0.7))
    assert (header["sex_text"], header["age_text"]) == ("M", "043Y")


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"heights": (0, 1, 2, 4, 5)}, "has slices 2.50 to 5.00 mm apart; one is missing"),
        ({"heights": (0, 1, 1, 2)}, "has slices 0.00 to 2.50 mm apart"),
        ({"ImagePositionPatient": None}, "does not say where it lies"),
    ],
)
def test_a_series_with_holes_or_copies_is_refused(series, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        volume.read_values(series(**fields))


def test_what_a_desktop_or_a_disc_leaves_in_a_series_is_left_out_and_said(series, tmp_path):
    plain, _, _ = volume.read_values(series("plain"))
    folder = series()
    for name in (".DS_Store", "._0.dcm", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"\0\x05\x16\7 no slice")
    write_report(folder / "report.dcm")
    (folder / "DICOMDIR").write_bytes((folder / "report.dcm").read_bytes()[:140])
    for i, path in enumerate(sorted(folder.glob("?.dcm"))):
        path.rename(folder / ("IM1", "b.IMA", "1.2.840.3", "d.DCM", "e.dcm")[i])
    values, _, header = volume.read_values(folder)
    np.testing.assert_array_equal(values, plain)
    assert header["remarks"] == [
        "left out: DICOM files without an image",
        "left out: files of a desktop or a disc (.DS_Store, ._*, Thumbs.db, DICOMDIR)",
        "left out: files that are no DICOM",
    ]


def test_a_slice_that_is_damaged_is_not_left_out(series):
    folder = series()
    content = (folder / "4.dcm").read_bytes()
    (folder / "4.dcm").write_bytes(b"")
    with pytest.raises(InputError, match=r"4.dcm is no DICOM file, and is named like the slices"):
        volume.read_values(folder)
    one = pydicom.dcmread(folder / "0.dcm")
    (folder / "4.dcm").write_bytes(content)
    del one.Rows, one.PixelData
    one.save_as(folder / "0.dcm")
    with pytest.raises(InputError, match=r"0.dcm is cut off before its image"):
        volume.read_values(folder)


def test_padding_in_a_slice_is_its_lowest_value(series):
    plain, _, _ = volume.read_values(series("plain"))
    values, _, _ = volume.read_values(series(PixelPaddingValue=91))
    spoilt = plain == 2 * 91 - 1024
    assert spoilt.any() and (values[~spoilt] == plain[~spoilt]).all()
    assert (values[spoilt] == [plain[d].min() for d in np.nonzero(spoilt)[0]]).all()


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize(
    "name", ["RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient"]
)
@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_a_number_of_a_slice_that_is_not_finite_is_refused(series, name, wrong):
    count = {"PixelSpacing": 2, "ImagePositionPatient": 3}.get(name, 1)
    with pytest.raises(InputError, match=f"its {name} is .*{wrong}.*, and numbers are wanted"):
        volume.read_values(series(**{name: [wrong] * count if count > 1 else wrong}))


def write_report(path):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.4"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)


def test_two_series_and_an_empty_folder_are_refused(series, tmp_path):
    folder = series()
    one = pydicom.dcmread(folder / "0.dcm")
    one.SeriesInstanceUID = "1.2.10"
    one.save_as(folder / "0.dcm")
    with pytest.raises(InputError, match=r"slices of 2 series"):
        volume.read_values(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no DICOM slice \(folders in it"):
        volume.read_values(tmp_path / "empty")
