"""What predict says of files, and what it leaves."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.data import pixels
from jaxfair.data.pixels import Job
from jaxfair.errors import InputError
from jaxfair.model_file.model import load_model
from jaxfair.predict import __main__ as command
from jaxfair.predict import gallery, output, scoring, watching
from jaxfair.predict.cases import Case, cases_of
from jaxfair.predict.judged import AUTO, POOLED, check_rule, decided, facts_of, notes_of, unread
from jaxfair.schema import AGE_GROUPS, CAUTION, PHANTOM
from tests.model_file.made import made_file

FACTS = {"sex": "F", "age": 40.0, "age_group": "31-45", "view": "PA"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return made_file(tmp_path_factory.mktemp("model") / "m.jaxfair")


@pytest.fixture(scope="module")
def model(path):
    return load_model(path)


@pytest.fixture(scope="module")
def inbox(tmp_path_factory):
    """Thirty-five films, a table of some of them, and files that are none."""
    folder, rng = tmp_path_factory.mktemp("inbox"), np.random.default_rng(0)
    for i in range(35):
        levels = rng.integers(0, 256, (16, 12 if i else 64), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"film {i:02}.png")
    (folder / "<b>.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    (folder / "letter.txt").write_text("Dear colleague")
    return folder


@pytest.fixture(scope="module")
def left(path, inbox, tmp_path_factory):
    """What the command leaves of the folder."""
    out = tmp_path_factory.mktemp("out")
    assert command.main(["predict", str(path), str(inbox), f"--out={out}"]) == 0
    return out


def test_every_film_has_a_score_and_what_is_none_is_set_aside_with_the_reason(left):
    table = pd.read_parquet(left / "predictions.parquet")
    assert len(table) == 35 and table["image_id"].is_unique and table["score"].notna().all()
    aside = pd.read_csv(left / "rejected.csv").set_index("image_id")["reason"]
    assert sorted(aside.index) == ["<b>.png", "letter.txt"]
    assert "no image" in aside["letter.txt"] and aside.str.len().min() > 20


def test_csv_json_and_parquet_say_the_same(left):
    table = pd.read_parquet(left / "predictions.parquet")
    read = pd.read_csv(left / "predictions.csv", keep_default_na=False)
    told = json.loads((left / "predictions.json").read_text())
    assert read["image_id"].tolist() == table["image_id"].tolist()
    assert np.allclose(read["score"], table["score"])
    assert [row["image_id"] for row in told["predictions"]] == table["image_id"].tolist()
    assert np.allclose([row["score"] for row in told["predictions"]], table["score"])
    assert len(told["rejected"]) == 2 and told["rule"] == "youden"


def test_every_output_says_that_it_is_not_for_diagnosis(left, capsys, path, inbox, tmp_path):
    film = str(inbox / "film 01.png")
    assert command.main(["predict", str(path), film, f"--out={tmp_path}"]) == 0
    assert CAUTION in capsys.readouterr().out
    files = [p for p in left.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".parquet", ".csv", ".json", ".png", ".html"}
    for file in files:
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert picture.info["Comment"] == CAUTION
        elif file.suffix == ".parquet":
            assert (pd.read_parquet(file)["notice"] == CAUTION).all()
        else:
            assert CAUTION in file.read_text()


def test_a_prediction_reads_a_file_as_the_training_did(model, inbox, left):
    """By the function of the source, to the byte, and scaled by that of the data set."""
    table = pd.read_parquet(left / "predictions.parquet").set_index("image_id")["score"]
    for name in ("film 00.png", "film 07.png", "film 34.png"):
        stored, _ = pixels.read_square(Job(str(inbox / name), model.stored))
        assert model.score(stored[None])["mass"][0] == pytest.approx(table[name], abs=1e-6)


def test_a_map_of_each_film_lies_beside_its_image(left):
    table = pd.read_parquet(left / "predictions.parquet")
    for name in table["map"]:
        with Image.open(left / name) as picture:
            assert picture.size == (16, 8)
    assert table["map"].is_unique


@pytest.mark.parametrize(("data", "said"), [(PHANTOM, True), ("real", False)])
def test_the_page_of_a_model_of_drawn_images_says_so(tmp_path, model, data, said):
    told = dataclasses.replace(model, about={**model.about, "data": data})
    gallery.write(tmp_path / "index.html", told, gallery.Highest(), 0, [])
    assert ("PHANTOM: the model was trained" in (tmp_path / "index.html").read_text()) == said


@pytest.mark.parametrize(("kind", "maps", "said"), [
    ("picture", True, True), ("picture", False, False), ("volume", True, False),
])  # fmt: skip
def test_the_page_speaks_of_maps_only_where_it_shows_them(tmp_path, model, kind, maps, said):
    images = {**model.about["images"], "kind": kind}
    told = dataclasses.replace(model, about={**model.about, "maps": maps, "images": images})
    gallery.write(tmp_path / "index.html", told, gallery.Highest(), 0, [])
    assert ("A map stands beside its image" in (tmp_path / "index.html").read_text()) == said


def test_a_map_is_black_up_to_its_median_and_white_at_its_highest_value(tmp_path):
    levels = np.arange(5.0, 9.0).reshape(2, 2)  # far above 0 everywhere
    output.write_map(tmp_path / "m.png", np.zeros((2, 2, 1), np.uint8), levels)
    with Image.open(tmp_path / "m.png") as picture:
        assert np.asarray(picture)[:, 2:].tolist() == [[0, 0], [85, 255]]


def test_the_page_escapes_what_files_are_called_and_asks_nobody(left):
    text = (left / "index.html").read_text()
    assert "&lt;b&gt;.png" in text and "<b>.png" not in text
    assert "<script" not in text and "http:" not in text and "https:" not in text
    assert text.count("<figure>") == 24


def test_the_page_speaks_of_dicom_files_only_where_they_were_asked_for(left):
    assert not (left / "dicom").exists()
    assert "dicom/" not in (left / "index.html").read_text()


def test_a_map_of_a_volume_is_nifti_that_lies_over_its_source(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    maps = np.arange(24.0).reshape(2, 3, 4)
    affine = np.array([[0, -2.0, 0, 5], [-1.5, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    name = output.map_file("a", maps)
    output.write_map(tmp_path / name, np.zeros((2, 3, 4, 1), np.uint8), maps, affine)
    read = nibabel.load(tmp_path / name)
    np.testing.assert_allclose(read.affine, affine)
    assert read.header.get_xyzt_units()[0] == "mm" and read.header["sform_code"] > 0
    assert np.array_equal(np.asarray(read.dataobj).T, maps)
    assert read.header["descrip"].item().decode() == CAUTION
    assert [p.name for p in (tmp_path / "maps").iterdir()] == [name.removeprefix("maps/")]


def test_a_map_of_a_volume_that_lies_nobody_knows_how_says_so(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    output.write_map(tmp_path / "a.nii.gz", np.zeros((2, 3, 4, 1)), np.zeros((2, 3, 4)))
    header = nibabel.load(tmp_path / "a.nii.gz").header
    assert header["sform_code"] == header["qform_code"] == 0


def test_the_threshold_of_the_case_s_own_group_decides_and_says_so(model):
    own = decided(model, "mass", 0.0, FACTS, rule="youden")
    assert own == (-0.5, "sex: F", True)
    for facts in (FACTS | {"sex": "M"}, FACTS | {"sex": "unknown"}):
        assert decided(model, "mass", 0.0, facts, rule="youden") == (0.1, POOLED, False)
    assert decided(model, "mass", 0.1, FACTS, rule="youden", by=POOLED) == (0.1, POOLED, True)
    assert decided(model, "mass", 0.1, FACTS, rule="min_gap") == (0.2, POOLED, False)
    assert decided(model, "other", 0.1, FACTS, rule="youden") == (None, "", None)


def test_rules_and_groups_that_the_model_lacks_are_refused(model):
    check_rule(model, "youden", AUTO)
    with pytest.raises(InputError, match="by min_gap, youden"):
        check_rule(model, "best", AUTO)
    with pytest.raises(InputError, match="auto, pooled, sex"):
        check_rule(model, "youden", "age_group")


def test_a_table_goes_before_the_header_and_both_are_read_as_prepare_reads_them(model):
    header = {"sex_text": "M", "age_text": "043Y", "view_text": "p.a.", "patient_text": "7"}
    found = facts_of(Case("a", "a", {"sex": "weiblich"}), header, model.groups)
    assert found == {"sex": "F", "age": 43.0, "age_group": "31-45", "view": "PA", "patient_id": "7"}
    assert facts_of(Case("a", "a", {"sex": ""}), header, model.groups)["sex"] == "M"


def test_the_age_group_of_a_table_counts_where_it_has_no_age():
    known = {"sex": ("F", "M"), "age_group": AGE_GROUPS}

    def told(texts, **header):
        return facts_of(Case("a", "a", texts), header, known)["age_group"]

    assert told({"age_group": "46-60"}) == "46-60"
    assert told({"age_group": "46-60"}, age_text="030Y") == "46-60"
    assert told({"age_group": "46-60", "age": "40"}) == "31-45"
    assert told({"age_group": "old"}) == "unknown" and told({}, age_text="40") == "31-45"


@pytest.mark.parametrize(
    ("texts", "header", "said"),
    [
        ({"sex": "2"}, {}, ["sex is '2', which is no sex to believe: taken as unknown."]),
        ({"sex": "weiblich", "age": "43,5", "view": ""}, {"sex_text": "O"}, []),
        ({}, {"sex_text": "O"}, ["sex is 'O', which is no sex to believe: taken as unknown."]),
    ],
)
def test_words_that_are_not_understood_are_said(texts, header, said):
    assert unread(Case("a", "a", texts), header) == said


def test_rows_that_are_wrong_are_listed_and_the_others_are_scored(model, inbox, tmp_path):
    name = inbox / "film 01.png"
    rows = f"id,path,sex\n1,{name},F\n2,,F\n3,{name},M\n4,{inbox / 'film 02.png'},F\n"
    rows += f"4,{inbox / 'film 03.png'},F\n"
    (tmp_path / "t.csv").write_text(rows)
    cases = cases_of([str(tmp_path / "t.csv")], "picture", model.groups)
    scoring.run(model, cases, tmp_path / "out", progress=False)
    told = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("image_id")["notes"]
    assert told.index.tolist() == ["4", str(inbox / "film 03.png")]
    assert "It is called '4' in row 6 of t.csv" in told.iloc[1] and "called" not in told.iloc[0]
    aside = pd.read_csv(tmp_path / "out" / "rejected.csv").set_index("image_id")
    assert sorted(aside.index) == [1, 2, 3] and "no path" in aside.loc[2, "reason"]
    assert aside.loc[3, "file"] == "film 01.png" and "'M' in row 4" in aside.loc[3, "reason"]


def test_a_case_like_those_of_the_training_has_no_note(model):
    header = {"rows": 20, "columns": 16, "modality": "DX", "remarks": []}
    even = np.tile(np.array([60, 180], np.uint8), 32).reshape(8, 8, 1)
    assert notes_of(model, FACTS, header, even) == []


@pytest.mark.parametrize(
    ("facts", "header", "level", "said"),
    [
        ({}, {"rows": 6, "columns": 6}, 0, "smaller than the 8 px"),
        ({}, {"rows": 9, "columns": 20}, 0, "middle square"),
        ({}, {"modality": "MR"}, 0, "Modality MR: the model is for CR, DX"),
        ({"view": "lateral"}, {}, 0, "View lateral: the model is for PA"),
        ({"view": "unknown"}, {}, 0, "View unknown"),
        ({"sex": "unknown"}, {}, 0, "sex is unknown: scored as unknown"),
        ({}, {}, 60, "Intensities: mean"),
        ({}, {"remarks": ["odd"]}, 0, "Decoder: odd"),
    ],
)
def test_what_is_outside_of_the_training_is_noted(model, facts, header, level, said):
    even = np.tile(np.array([60, 180], np.uint8), 32).reshape(8, 8, 1)
    usual = {"rows": 20, "columns": 16, "modality": "CR", "remarks": []}
    found = notes_of(model, FACTS | facts, usual | header, even + np.uint8(level))
    assert len(found) == 1 and said in found[0]


@pytest.mark.parametrize("watch", [False, True])
def test_a_folder_of_an_earlier_prediction_is_refused_and_stays_as_it_is(
    path, inbox, left, capsys, watch, monkeypatch
):
    """Else a map of the earlier one lies beside a score of the new one."""
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: pytest.fail("It waits."))
    before = {file: file.read_bytes() for file in left.rglob("*") if file.is_file()}
    line = ["predict", str(path), str(inbox / "film 01.png"), f"--out={left}"]
    assert command.main([*line, *["--watch"] * watch]) == 2
    said = capsys.readouterr().err
    assert "holds predictions.parquet of an earlier prediction; name another folder" in said
    assert {file: file.read_bytes() for file in left.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", output.LEFT)
def test_whatever_is_left_of_an_earlier_prediction_is_seen(tmp_path, name):
    output.check_new(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    output.check_new(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="of an earlier prediction"):
        output.check_new(tmp_path)


def test_all_that_is_left_is_known_as_left(left):
    assert {file.name for file in left.iterdir()} == set(output.LEFT) - {"dicom"}


def test_a_large_file_is_set_aside_by_a_limit_that_this_command_has(path, tmp_path, capsys):
    Image.fromarray((np.arange(640_000) % 251).astype(np.uint8).reshape(800, 800)).save(
        tmp_path / "huge.png"
    )
    line = ["predict", str(path), str(tmp_path / "huge.png"), "--max-megabytes"]
    assert command.main([*line, "1", f"--out={tmp_path / 'a'}"]) == 0
    (reason,) = pd.read_csv(tmp_path / "a" / "rejected.csv")["reason"]
    assert "--max-megabytes is 1; raise it" in reason and "data." not in reason
    assert command.main([*line, "3", f"--out={tmp_path / 'b'}"]) == 0
    assert len(pd.read_csv(tmp_path / "b" / "predictions.csv")) == 1
    assert command.main([*line, "0", f"--out={tmp_path / 'c'}", "--watch"]) == 2
    assert "--max-megabytes is 0" in capsys.readouterr().err


def test_a_model_without_thresholds_scores_and_decides_nothing(model, inbox, tmp_path):
    import dataclasses

    bare = dataclasses.replace(model, evaluation={})
    cases = cases_of([str(inbox / "film 03.png")], "picture", model.groups)
    session = scoring.run(bare, cases, tmp_path, progress=False)
    assert session.rows[0]["threshold"] is None and session.rows[0]["threshold_of"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give a model, inputs and a folder"),
        (["MODEL", "INBOX"], "Give a model, inputs and a folder"),
        (["MODEL", "INBOX", "--out=x", "--columns=sex"], "it takes WHAT=COLUMN"),
        (["MODEL", "INBOX", "--out=x", "--sha256=00"], "was asked for"),
        (["INBOX", "INBOX", "--out=x"], "There is no model file"),
        (["MODEL", "INBOX", "--out=INBOX"], "name a folder outside of it"),
    ],
)
def test_a_wrong_line_is_one_sentence(words, said, path, inbox, capsys):
    places = {"MODEL": str(path), "INBOX": str(inbox)}
    line = [
        word.replace("INBOX", places["INBOX"]).replace("MODEL", places["MODEL"]) for word in words
    ]
    assert command.main(["predict", *line]) == 2
    assert said in capsys.readouterr().err
