"""Files that nobody should have sent: each is set aside by name, and the others are scored."""

import gzip
import os
import pathlib

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.model_file.model import load_model
from jaxfair.predict import __main__ as command
from jaxfair.predict import scoring
from jaxfair.predict.cases import cases_of
from tests.model_file.made import made_file
from tests.predict.films import write_film
from tests.predict.volumes import volume_file


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(made_file(tmp_path_factory.mktemp("model") / "m.jaxfair"))


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    """Three good films, two of one name, among files of every bad kind."""
    folder = tmp_path_factory.mktemp("inbox")
    write_film(folder / "monday" / "1.dcm")
    write_film(
        folder / "tuesday" / "1.dcm", (np.arange(400) % 256).astype(np.uint8).reshape(20, 20)
    )
    write_film(folder / "ultrasound.dcm", Modality="US")
    whole = (folder / "monday" / "1.dcm").read_bytes()
    for name, content in {
        "cut in the pixels.dcm": whole[:-500],
        "cut in the header.dcm": whole[:300],
        "letter.dcm": b"Dear colleague, please find enclosed",
        "empty.dcm": b"",
        "zeros.dcm": bytes(2000),
        "bomb.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
        "volume.nii.gz": gzip.compress(
            nibabel.Nifti1Image(np.ones((4, 4, 4)), np.eye(4)).to_bytes()
        ),
    }.items():
        (folder / name).write_bytes(content)
    write_film(
        folder / "palette.dcm",
        np.arange(400, dtype=np.uint16).reshape(20, 20),
        PhotometricInterpretation="PALETTE COLOR",
        RedPaletteColorLookupTableDescriptor=[65535, 0, 16],  # and no table
    )
    (folder / "nothing here").mkdir()
    os.mkfifo(folder / "pipe.dcm")
    (folder / "gone.dcm").symlink_to(folder / "was.dcm")
    Image.fromarray((np.arange(400) % 256).astype(np.uint8).reshape(20, 20)).save(
        os.fsencode(folder) + b"/\xff.png", "PNG"
    )
    return folder


@pytest.fixture(scope="module")
def left(model, inbox, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    cases = cases_of([str(inbox)], "picture", model.groups)
    scoring.run(model, cases, out, dicom=True, progress=False)
    return out


def test_good_files_are_scored_and_each_bad_one_is_named_with_a_reason(left):
    scored = pd.read_parquet(left / "predictions.parquet").set_index("image_id")
    assert sorted(scored.index) == ["\\xff.png", "monday/1.dcm", "tuesday/1.dcm", "ultrasound.dcm"]
    assert "Modality US: the model is for CR, DX" in scored.loc["ultrasound.dcm", "notes"]
    aside = pd.read_csv(left / "rejected.csv").set_index("image_id")["reason"]
    assert sorted(aside.index) == sorted(
        ["bomb.png", "cut in the header.dcm", "cut in the pixels.dcm", "empty.dcm", "gone.dcm",
         "letter.dcm", "palette.dcm", "volume.nii.gz", "zeros.dcm"]
    )  # fmt: skip
    for name, reason in aside.items():
        assert pathlib.PurePath(str(name)).name in reason and "\n" not in reason, reason
        assert "Traceback" not in reason and 20 < len(reason) < 400, reason


def test_files_of_one_name_in_two_folders_keep_outputs_of_their_own(left):
    scored = pd.read_parquet(left / "predictions.parquet").set_index("image_id")
    both = scored.loc[["monday/1.dcm", "tuesday/1.dcm"]]
    for column in ("map", "dicom", "score"):
        assert both[column].is_unique
    contents = {(left / place).read_bytes() for place in (*both["map"], *both["dicom"])}
    assert len(contents) == 4


def test_a_name_that_is_no_text_stands_in_every_output(left):
    for name in ("predictions.csv", "predictions.json", "index.html"):
        assert "xff.png" in (left / name).read_text()


@pytest.mark.parametrize("inputs", [["nothing here"], ["pipe.dcm"], ["missing.dcm"]])
def test_an_input_without_a_file_is_one_sentence_and_writes_nothing(
    model, inbox, tmp_path, inputs, capsys
):
    line = ["predict", str(made_file(tmp_path / "m.jaxfair")), *(str(inbox / i) for i in inputs)]
    assert command.main([*line, f"--out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.count(". ") <= 2 and not (tmp_path / "out").exists()


def test_a_hostile_model_is_one_sentence_and_writes_nothing(inbox, tmp_path, capsys):
    path = made_file(tmp_path / "m.jaxfair")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = ["predict", str(path), str(inbox), f"--out={tmp_path / 'out'}"]
    assert command.main(line) == 2
    assert "was changed or cut off" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_volumes_that_are_none_are_set_aside(tmp_path):
    model = load_model(volume_file(tmp_path / "v.jaxfair"))
    inbox, rng = tmp_path / "in", np.random.default_rng(0)
    inbox.mkdir()
    good = rng.normal(size=(6, 6, 6)).astype(np.float32)
    bad = good.copy()
    bad[2, 2, 2] = np.nan
    for name, values in (("good", good), ("nan", bad), ("flat", good[..., 0])):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), inbox / f"{name}.nii")
    (inbox / "cut.nii").write_bytes((inbox / "good.nii").read_bytes()[:400])
    (inbox / "letter.nii").write_text("Dear colleague")
    write_film(inbox / "film" / "1.dcm")  # a slice that does not say where it lies
    os.mkfifo(inbox / "pipe.nii")
    cases = cases_of([str(inbox)], "volume", model.groups)
    session = scoring.run(model, cases, tmp_path / "out", progress=False)
    assert [row["image_id"] for row in session.rows] == ["good.nii"]
    reasons = {one["image_id"]: one["reason"] for one in session.aside}
    assert set(reasons) == {"nan.nii", "flat.nii", "cut.nii", "letter.nii", "film"}
    assert "not finite" in reasons["nan.nii"] and "where it lies" in reasons["film"]
