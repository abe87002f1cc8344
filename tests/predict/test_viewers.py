"""Maps as DICOM: filed where the source is, true to the numbers, and where they say they lie."""

import dataclasses
import types

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from jaxfair.data import decode, pixels, volume
from jaxfair.data.pixels import Job
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError
from jaxfair.model_file.model import load_model
from jaxfair.predict import __main__ as command
from jaxfair.predict import painting, scoring, viewers
from jaxfair.predict.source import COPIED, read_source
from jaxfair.schema import CAUTION
from tests.model_file.made import made_file
from tests.predict.films import write_film, write_series

MODEL = types.SimpleNamespace(about={"name": "made"}, digest="d" * 64)
HEAT = np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32)


def source_of(path, read=pixels.read_square, **how):
    """The Source that a decoding process would send, or why there is none."""
    _, header = read_source(read, Job(str(path), Stored(image_size=8, **how)))
    return header["source"]


def written(tmp_path, source, heat=HEAT):
    viewers.write_dicom(tmp_path / "out", "a", source, heat, MODEL, viewers.Filing())
    return {path.name.split(".")[1]: path for path in (tmp_path / "out" / "dicom").iterdir()}


@pytest.fixture
def film(tmp_path):
    """(the film as it was written, the files of its map)."""
    dataset = write_film(tmp_path / "a.dcm")
    return dataset, written(tmp_path, source_of(tmp_path / "a.dcm"))


def test_both_maps_are_filed_under_the_patient_and_study_of_the_film_in_series_of_their_own(film):
    source, paths = film
    made = [pydicom.dcmread(path) for path in paths.values()]
    for one in made:
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                     "StudyInstanceUID", "AccessionNumber", "StudyDescription"):  # fmt: skip
            assert one[name].value == source[name].value, name
        (reference,) = one.SourceImageSequence
        assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == source.SOPClassUID
    series = {one.SeriesInstanceUID for one in made} | {source.SeriesInstanceUID}
    instances = {one.SOPInstanceUID for one in made} | {source.SOPInstanceUID}
    assert len(series) == len(instances) == 3
    kinds = {one.SOPClassUID for one in made}
    assert kinds == {ParametricMapStorage, SecondaryCaptureImageStorage}


def test_nothing_else_of_the_header_is_taken_over(film):
    """What is copied is one list, so that nobody has to search a file for it."""
    source, paths = film
    for path in paths.values():
        content = path.read_bytes()
        for name in set(source.dir()) - set(COPIED):
            value = str(source[name].value)
            if name in ("OperatorsName", "InstitutionName", "PatientAge"):
                assert value.encode() not in content, name
    assert "OperatorsName" not in COPIED and "PatientAge" not in COPIED


def test_both_say_that_they_are_derived_and_not_for_diagnosis(film):
    _, paths = film
    for path in paths.values():
        one = pydicom.dcmread(path)
        assert one.ImageType[0] == "DERIVED" and "not for diagnosis" in one.SeriesDescription
        assert CAUTION in one.DerivationDescription and one.ImageComments == CAUTION
        assert one.DeviceSerialNumber == MODEL.digest
    made = pydicom.dcmread(paths["map"])
    assert made.ContentQualification == "RESEARCH" and made.BurnedInAnnotation == "NO"
    assert pydicom.dcmread(paths["overlay"]).BurnedInAnnotation == "YES"  # as its film says


@pytest.mark.parametrize(
    "heat",
    [HEAT, HEAT * 1e-6 + 5, np.full((8, 8), 0.25, np.float32), np.zeros((8, 8), np.float32)],
    ids=["both signs", "narrow", "even", "zero"],
)
def test_values_come_back_within_half_a_step(tmp_path, heat):
    write_film(tmp_path / "a.dcm")
    path = written(tmp_path, source_of(tmp_path / "a.dcm"), heat)["map"]
    read = highdicom.imread(path).get_frames(apply_real_world_transform=True)
    step = (float(heat.max()) - float(heat.min())) / viewers.LEVELS
    assert np.abs(read[0] - heat.astype(np.float64)).max() <= step / 2 + 1e-12
    assert read.shape == (1, 8, 8)


def pixel_middles(path):
    """(rows, columns, 3) mm to left, back and head, by what a parametric map says of its place."""
    one = pydicom.dcmread(path)
    shared, frames = one.SharedFunctionalGroupsSequence[0], one.PerFrameFunctionalGroupsSequence
    turn = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    between = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    starts = [np.array(f.PlanePositionSequence[0].ImagePositionPatient, float) for f in frames]
    j, i = np.meshgrid(np.arange(one.Rows), np.arange(one.Columns), indexing="ij")
    across = i[..., None] * between[1] * turn[:3] + j[..., None] * between[0] * turn[3:]
    return np.stack([start + across for start in starts])


@pytest.mark.parametrize(
    ("resize", "region"),
    [("crop", (0, 10, 40, 40)), ("pad", (-10, 0, 60, 60)), ("stretch", (0, 0, 40, 60))],
)
def test_a_map_of_a_film_lies_where_the_model_read_it(tmp_path, resize, region):
    """In the film's own plane: from the middle of its first pixel, along rows and columns."""
    write_film(tmp_path / "a.dcm")
    path = written(tmp_path, source_of(tmp_path / "a.dcm", resize=resize))["map"]
    found = pixel_middles(path)[0]
    top, left, height, width = region
    rows = top + (np.arange(8) + 0.5) * height / 8 - 0.5
    columns = left + (np.arange(8) + 0.5) * width / 8 - 0.5
    np.testing.assert_allclose(found[..., 0], np.tile(columns * 0.3, (8, 1)), atol=1e-6)
    np.testing.assert_allclose(found[..., 1], np.tile(rows[:, None] * 0.2, (1, 8)), atol=1e-6)
    assert not found[..., 2].any()


def test_a_film_with_a_place_in_the_patient_keeps_its_frame_of_reference(tmp_path):
    places = {
        "FrameOfReferenceUID": "1.2.826.1",
        "ImagePositionPatient": [5.0, 6.0, 7.0],
        "ImageOrientationPatient": [0.0, 1.0, 0.0, 0.0, 0.0, -1.0],
        "PixelSpacing": [2.0, 3.0],
    }
    write_film(tmp_path / "a.dcm", **places)
    path = written(tmp_path, source_of(tmp_path / "a.dcm", resize="stretch"))["map"]
    assert pydicom.dcmread(path).FrameOfReferenceUID == "1.2.826.1"
    first = pixel_middles(path)[0, 0, 0]
    expected = [5, 6 + 3 * (60 / 16 - 0.5), 7 - 2 * (40 / 16 - 0.5)]
    np.testing.assert_allclose(first, expected, atol=1e-6)


@pytest.mark.parametrize("turn", [None, ((0, 1, 0), (0, 0, -1)), ((-1, 0, 0), (0, 1, 0))])
def test_a_map_of_a_series_lies_over_its_slices(tmp_path, turn):
    """A voxel as it was scored has the value that the source has at the place the map names."""
    d, h, w = np.meshgrid(np.arange(6), np.arange(8), np.arange(9), indexing="ij")
    slices = write_series(tmp_path / "ct", 100 * d + 10 * h + w, turn=turn)
    how = Stored(volume=(4, 6, 5), window=(0.0, 700.0))
    scored, header = read_source(volume.read_volume, Job(str(tmp_path / "ct"), how))
    path = written(tmp_path, header["source"], scored[..., 0].astype(np.float32))["map"]
    made = pydicom.dcmread(path)
    assert made.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    found = {r.ReferencedSOPInstanceUID for r in made.SourceImageSequence}
    assert found == {one.SOPInstanceUID for one in slices}
    read = highdicom.imread(path).get_frames(apply_real_world_transform=True)
    row, column = np.asarray(turn or ((1, 0, 0), (0, 1, 0)), float)
    places = pixel_middles(path) - np.array([-10.0, -20.0, 30.0])
    k, j, i = places @ np.cross(row, column) / 2.5, places @ column / 0.8, places @ row / 0.7
    np.testing.assert_allclose(read, 255 * (100 * k + 10 * j + i) / 700, atol=0.6)


def test_an_overlay_shows_film_colour_frame_and_line(tmp_path):
    """Grey where the map is 0 and beyond the square, red to yellow where it is high."""
    write_film(tmp_path / "a.dcm", np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1)))
    heat = np.zeros((8, 8), np.float32)
    heat[2, 5] = 2.0
    shown = pydicom.dcmread(written(tmp_path, source_of(tmp_path / "a.dcm"), heat)["overlay"])
    picture = shown.pixel_array
    assert shown.PhotometricInterpretation == "RGB" and picture.shape[1] == 1024
    film, band = picture[:683], picture[683:]
    assert band.any() and (band[..., 0] == band[..., 2]).all()  # white letters on black
    colour = film[..., 0].astype(int) - film[..., 2]
    row, column = np.unravel_index(colour.argmax(), colour.shape)
    scale = 1024 / 60
    assert abs(row - 2.5 * 5 * scale) < 6 and abs(column - (10 + 5.5 * 5) * scale) < 6
    assert (film[:, : int(9 * scale)].std(-1) == 0).all()  # what was not read has no colour
    assert (film[300:400, int(10 * scale) + 1] == painting.FRAME).all()


def test_what_is_at_or_below_the_median_of_its_map_has_no_colour():
    """Else a map that lies far above 0 everywhere would paint the whole film."""
    maps = 7 + np.arange(16.0).reshape(4, 4)
    shown = painting.painted(np.full((40, 400), 9, np.uint8), maps, (0, 0, 40, 400), "x")
    colour = shown[:40].std(-1) > 0
    assert not colour[:15].any() and colour[35:].all()


def test_the_line_below_a_film_is_the_caution_itself():
    film, line = np.full((100, 100), 9, np.uint8), CAUTION
    with_it = painting.painted(film, np.zeros((4, 4)), (0, 0, 100, 100), line)
    without = painting.painted(film, np.zeros((4, 4)), (0, 0, 100, 100), "x")
    assert (with_it[:100, :100] == 9).all() and with_it.shape[1] == painting.NARROWEST
    assert (with_it[100:] > 128).sum() > 20 * (without[100:] > 128).sum() > 0


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "none", "1.2." + "3" * 80])
def test_a_film_that_nobody_could_file_has_no_map_and_says_so(tmp_path, name, value):
    write_film(tmp_path / "a.dcm", **{name: value})
    assert source_of(tmp_path / "a.dcm") == f"No DICOM map: the file has no valid {name}."


@pytest.mark.parametrize(
    "odd",
    [
        {"PatientSex": "weiblich, wie es in der Akte steht"},
        {"PatientBirthDate": "3.2.70"},
        {"PatientName": "A^B^C^D^E^F^G=H=I=J"},
        {"StudyDate": "yesterday", "StudyTime": "noon"},
        {"PatientID": None, "PatientName": None},
        {"SpecificCharacterSet": "ISO_IR 9999", "PatientName": "A"},
        {"ImagerPixelSpacing": [0.0, -1.0]},
        {"BodyPartExamined": "x" * 400},
    ],
    ids=str,
)
def test_a_header_that_breaks_the_standard_still_gets_a_map_that_can_be_read(tmp_path, odd):
    """The source's words stand in the map as they are: a viewer sorts by them, right or wrong."""
    write_film(tmp_path / "a.dcm", **odd)
    paths = written(tmp_path, source_of(tmp_path / "a.dcm"))
    for path in paths.values():
        with decode.noted():
            made = pydicom.dcmread(path)
            assert str(made.get("PatientID")) == ("" if "PatientID" in odd else "4711")
            assert made.pixel_array.size


def test_maps_of_one_series_share_a_new_one_and_are_counted(tmp_path):
    filing, made = viewers.Filing(), []
    for series in ("1.2.3", "1.2.3", "1.2.4"):
        write_film(tmp_path / "a.dcm", SeriesInstanceUID=series)
        made.append(filing.next(source_of(tmp_path / "a.dcm"), "map"))
    assert made[0][0] == made[1][0] != made[2][0]
    assert [number for _, number in made] == [1, 2, 1]


def test_the_command_writes_maps_of_dicom_files_and_says_of_how_many_it_cannot(tmp_path, capsys):
    from PIL import Image

    model = made_file(tmp_path / "m.jaxfair")
    write_film(tmp_path / "in" / "a" / "1.dcm")
    write_film(tmp_path / "in" / "b" / "1.dcm")
    write_film(tmp_path / "in" / "bare.dcm", StudyInstanceUID=None)
    Image.fromarray(np.tile(np.arange(20, dtype=np.uint8), (20, 1))).save(tmp_path / "in" / "c.png")
    out = tmp_path / "out"
    assert (
        command.main(["predict", str(model), str(tmp_path / "in"), f"--out={out}", "--dicom"]) == 0
    )
    said = capsys.readouterr().out
    assert "2 with a DICOM map, which names the patient; 2 are no DICOM or cannot be filed" in said
    assert len(list((out / "dicom").iterdir())) == 4
    text = (out / "index.html").read_text()
    assert "Files in dicom/ name the patient and are as identifying as the input" in text
    notes = (out / "predictions.csv").read_text()
    assert "No DICOM map: the file has no valid StudyInstanceUID." in notes


def test_a_model_without_maps_refuses_to_write_them_as_dicom(tmp_path):
    model = load_model(made_file(tmp_path / "m.jaxfair"))
    bare = dataclasses.replace(model, about=model.about | {"maps": False})
    with pytest.raises(InputError, match="this model has none; leave it out"):
        scoring.run(bare, [], tmp_path / "out", dicom=True, progress=False)
    assert not (tmp_path / "out").exists()
