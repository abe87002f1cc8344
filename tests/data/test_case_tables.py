"""Tables that hospitals write, read as they mean them or refused in a sentence that helps."""

import pathlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.data import dataset
from jaxfair.data.card import unknown_lines
from jaxfair.data.config import make_data_config
from jaxfair.data.words import sex_from_text, view_from_text
from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked

CASES = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "cases"
GROUPS = ("sex", "age_group", "view")
COLUMNS = {"image": "image", "patient": "patient", "sex": "sex", "age": "age", "view": "view"}


def lines(patient=lambda i: f"p{i // 2}", image="i{}.png", sex="FM", age=40, between=","):
    rows = [["image", "patient", "y", "sex", "age", "view"]]
    for i in range(20):
        rows.append(
            [image.format(i), patient(i), i % 2, sex[i % len(sex)],
             age[i % len(age)] if isinstance(age, list) else age, "PA"]
        )  # fmt: skip
    return "\n".join(between.join(map(str, row)) for row in rows) + "\n"


TWINS = {
    "table_patws.csv": lines(lambda i: f"p{i // 2}" + " " * (i % 2)),
    "table_patfloat.csv": lines(lambda i: i // 2 if i % 2 else float(i // 2)),
    "table_sexes.csv": lines(sex=["O", "male", "Female", "f", "W", "weiblich", "1", "2"]),
    "table_ages.csv": lines(age=["000Y", "6M", "12D", "10W", "45", '"45,5"', "90+", ">89", "x"]),
    "table_imspace.csv": lines(image=" i{}.png"),
    "table_win.csv": lines(image="img\\i{}.png"),
    "table_semi.csv": lines(between=";"),
    "table_utf16.csv": lines(),
}
"""What the files of the same name hold, for machines without them."""


@pytest.fixture
def folder(tmp_path):
    """folder(name, twin) writes twenty images and the table of a case."""

    def make(name, twin):
        root = tmp_path / "root"
        root.mkdir()
        for i in range(20):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16)).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"i{i}.png")
        coding = "utf-16" if "utf16" in name else "utf-8"
        if not twin and not (CASES / name).is_file():
            pytest.skip(f"the shared case {name} is not here")
        content = TWINS[name].encode(coding) if twin else (CASES / name).read_bytes()
        (root / "table.csv").write_bytes(content)
        return root

    return make


def config(root, **table):
    about = {"file": "table.csv", "labels": ("y",)} | COLUMNS | table
    return make_data_config(
        source="table", root=str(root), prepared=str(root.parent / "set"), image_size=16,
        table=about,
    )  # fmt: skip


def opened(root, **table):
    return dataset.open_dataset(config(root, **table), progress=False)


either = pytest.mark.parametrize("twin", [True, False], ids=["twin", "shared"])


@either
def test_a_blank_behind_an_id_makes_no_second_patient(folder, twin):
    made = opened(folder("table_patws.csv", twin))
    assert made.card["patients"] == 10 and len(made) == 20


@either
def test_ids_that_look_alike_are_refused_with_the_way_out(folder, twin):
    root = folder("table_patfloat.csv", twin)
    with pytest.raises(InputError, match=r"'0' and '0\.0'.*look_alikes='merge'.*'apart'"):
        opened(root)
    assert opened(root, look_alikes="merge").card["patients"] == 10


@either
def test_ids_that_look_alike_stay_apart_where_somebody_says_so(folder, twin):
    made = opened(folder("table_patfloat.csv", twin), look_alikes="apart")
    assert made.card["patients"] == 20
    rows = made.manifest[["image_id", "patient_id"]].assign(y_true=[0, 1] * 10, y_score=0.5)
    assert (
        checked(rows)["patient_id"].nunique() == 20
    )  # a report of the run refuses none, merges none


@either
def test_words_for_sexes_are_understood_and_the_others_said_aloud(folder, twin):
    root = folder("table_sexes.csv", twin)
    made = opened(root)
    told = pd.read_csv(root / "table.csv", dtype=str)["sex"]
    by_word = dict(zip(told, made.manifest["sex"]))
    assert {by_word[word] for word in ("W", "weiblich", "Female", "f")} == {"F"}
    assert by_word["male"] == "M" and by_word["1"] == by_word["2"] == "unknown"
    line = next(
        line
        for line in unknown_lines(made.manifest, GROUPS, made.card["unread"])
        if line.startswith("sex")
    )
    assert "of 20 images" in line and "'1' x " in line and "'2' x " in line and "values" in line


@either
def test_numbers_for_sexes_mean_what_the_config_says(folder, twin):
    made = opened(folder("table_sexes.csv", twin), values={"sex": {"1": "M", "2": "F"}})
    unread = set(made.card["unread"]["sex"])
    assert "O" in unread and not unread & {"1", "2"}


@either
def test_ages_are_understood_or_said_aloud(folder, twin):
    root = folder("table_ages.csv", twin)
    made = opened(root)
    told = pd.read_csv(root / "table.csv", dtype=str)["age"]
    ages = dict(zip(told, made.manifest["age"]))
    expected = {"000Y": 0, "6M": 0.5, "45,5": 45.5, "61.5": 61.5, "089Y": 89, "45 years": 45,
                "045": 45, "90+": 90, ">89": 90}  # fmt: skip
    seen = {word: ages[word] for word in expected if word in ages}
    assert len(seen) >= 5 and seen == {word: expected[word] for word in seen}
    unread = made.manifest["age"].isna().sum()
    line = next(
        line
        for line in unknown_lines(made.manifest, GROUPS, made.card["unread"])
        if line.startswith("age")
    )
    assert unread and f"unknown in {unread} of 20 images" in line


@either
def test_a_blank_before_a_path_neither_hides_a_file_nor_its_change(folder, twin):
    root = folder("table_imspace.csv", twin)
    assert len(opened(root)) == 20
    (root / "i3.png").write_bytes((root / "i3.png").read_bytes() + b"more")
    with pytest.raises(InputError, match="was prepared from other files"):
        opened(root)


@either
def test_backslashes_are_folders_and_a_wrong_folder_is_named(folder, twin):
    root = folder("table_win.csv", twin)
    with pytest.raises(InputError, match=f"img/i0.png.*relative to.*lies in {root}: correct"):
        opened(root)
    (root / "img").mkdir()
    for file in root.glob("*.png"):
        file.rename(root / "img" / file.name)
    made = opened(root)
    assert len(made) == 20
    (root / "img" / "i3.png").unlink()
    with pytest.raises(InputError, match="was prepared from other files"):
        opened(root)


@either
@pytest.mark.parametrize("name", ["table_semi.csv", "table_utf16.csv"])
def test_semicolons_and_utf_16_are_read(folder, name, twin):
    made = opened(folder(name, twin))
    assert len(made) == 20 and made.card["patients"] == 10


@pytest.mark.parametrize("column, cells", [("sex", ["1", "2"]), ("age", ["old"]), ("view", [""])])
def test_a_named_column_that_gives_nothing_stops(folder, column, cells):
    root = folder("table_semi.csv", True)
    table = pd.read_csv(root / "table.csv", sep=";", dtype=str)
    table[column] = (cells * 20)[:20]
    table.to_csv(root / "table.csv", index=False)
    with pytest.raises(InputError, match=rf"no cell of its column {column} .*data.table.values"):
        opened(root)


def test_an_attribute_without_a_value_stops_and_words_become_values(folder):
    root = folder("table_semi.csv", True)
    table = pd.read_csv(root / "table.csv", sep=";", dtype=str)
    table["race"] = ["w", "B"] * 10
    table["site"] = ""
    table.to_csv(root / "table.csv", index=False)
    with pytest.raises(InputError, match="no cell of its column site"):
        opened(root, attributes=("site",))
    told = {"race": {"W": "white", "b": "black"}}
    config_ = config(root, attributes=("race",), values=told)
    made = dataset.open_dataset(config_, progress=False)
    assert set(made.manifest["race"]) == {"white", "black"}
    assert config_.facts["values"] == {"race": ("white", "black")}


def test_a_table_that_is_not_utf_8_is_read_and_that_is_said(folder, capsys):
    root = folder("table_semi.csv", True)
    text = (root / "table.csv").read_text().replace("sex", "Größe")
    (root / "table.csv").write_bytes(text.encode("latin-1"))
    opened(root, sex="Größe")
    assert "was read as Latin-1; look whether its letters are right" in capsys.readouterr().err


def test_a_folder_with_tables_of_other_names_is_told_which(folder):
    root = folder("table_semi.csv", True)
    (root / "table.csv").rename(root / "Tabelle.csv")
    with pytest.raises(InputError, match=r"data.table.file \(there are Tabelle.csv\)") as refused:
        opened(root)
    assert str(refused.value).count(". ") == 0


def test_columns_of_anomalies_make_one_label(folder):
    root = folder("table_semi.csv", True)
    table = pd.read_csv(root / "table.csv", sep=";", dtype=str)
    table["mass"] = ["1", "0", "", "0", *["0"] * 16]
    table["node"] = ["", "0", "0", "1", *["0"] * 16]
    table.to_csv(root / "table.csv", index=False)
    made = opened(root, labels=(), anomaly=("mass", "node"))
    assert made.tasks == ("anomaly",)
    np.testing.assert_array_equal(made.manifest["label_anomaly"][:4], [1, 0, np.nan, 1])
    train = made.manifest[made.manifest["split"] == "train"]
    assert len(train) and (train["label_anomaly"] == 0).all()


@pytest.mark.parametrize(
    "text, view",
    [("AP Supine", "AP"), ("pa", "PA"), ("PORTABLE AP", "AP"), ("Postero-Anterior", "PA"),
     ("p.a.", "PA"), ("a. p. liegend", "AP"),
     ("LL", "lateral"), ("Lat.", "lateral"), ("AP/LAT", "unknown"), ("APICAL", "unknown")],
)  # fmt: skip
def test_a_view_is_one_named_among_other_words(text, view):
    assert view_from_text(text)[0] == view


def test_a_number_is_no_sex():
    assert {sex_from_text(text)[0] for text in ("0", "1", "2", "1.0")} == {"unknown"}
