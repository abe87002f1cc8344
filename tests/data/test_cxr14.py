import gzip
import pathlib
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.data import arranging, build, dataset, manifest
from jaxfair.data.config import make_data_config
from jaxfair.data.sources import cxr14
from jaxfair.data.sources.base import SourceTable, rejected
from jaxfair.errors import InputError

REAL = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "nih-metadata"
HEAD = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")  # fmt: skip
ROWS = [  # several films of a patient that say different things, ages that are none
    ("00000001_000.png", "Cardiomegaly", 1, "57", "M", "PA"),
    ("00000001_001.png", "Cardiomegaly|Emphysema", 1, "058Y", "M", "PA"),
    ("00000001_002.png", "No Finding", 1, "411", "M", "AP"),
    ("00000002_000.png", "No Finding", 2, "0", "F", "PA"),
    ("00000003_000.png", "Hernia|Pleural_Thickening", 3, "81", "", "AP"),
    ("00000003_001.png", "No Finding", 3, "81", "F", "AP"),
]


@pytest.fixture
def root(tmp_path):
    """Six rows of the published table and their films, one of which is RGBA, as some are."""
    place = tmp_path / "nih"
    (place / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, row in enumerate(ROWS):
        pixels = rng.integers(0, 256, (32, 32)).astype(np.uint8)
        mode = "RGBA" if i == 4 else "L"
        Image.fromarray(pixels).convert(mode).save(place / "images" / row[0])
    write_entries(place, ROWS)
    (place / "train_val_list.txt").write_text("\n".join(r[0] for r in ROWS[:4]))
    (place / "test_list.txt").write_text("\n".join(r[0] for r in ROWS[4:]))
    return place


def write_entries(place, rows, name="Data_Entry_2017.csv"):
    lines = [f"{i},{f},0,{p},{a},{s},{v},2682,2749,0.143,0.143" for i, f, p, a, s, v in rows]
    content = "\n".join([HEAD, *lines]) + "\n"
    opener = gzip.open if name.endswith(".gz") else open
    with opener(place / name, "wt") as file:
        file.write(content)


def opened(root, **fields):
    fields = {"source": "cxr14", "image_size": 16, "prepared": str(root.parent / "set")} | fields
    return dataset.open_dataset(make_data_config(root=str(root), **fields), progress=False)


def test_every_film_keeps_its_own_findings(root):
    table = opened(root).manifest.set_index("image_id")
    found = table.filter(like="label_")
    assert found.loc["00000001_000.png"].sum() == 1 and found.loc["00000001_002.png"].sum() == 0
    assert found.loc["00000001_001.png", ["label_cardiomegaly", "label_emphysema"]].all()
    assert found.loc["00000003_000.png", ["label_hernia", "label_pleural_thickening"]].all()
    assert found.notna().all(axis=None) and found.shape == (6, 14)


def test_ages_sexes_and_patients_are_read_as_they_stand(root):
    made = opened(root)
    table = made.manifest
    np.testing.assert_array_equal(table["age"], [57, 58, np.nan, 0, 81, 81])
    assert table["sex"].tolist() == ["M", "M", "M", "F", "unknown", "F"]
    assert table["patient_id"].tolist()[::3] == ["00000001", "00000002"]
    assert made.unit == "patient" and made.population == "nih-chestxray14"
    assert made.card["headers"]["photometric"] == {"L": 5, "RGBA": 1}
    assert made.card["headers"]["age"]["above 110"] == 1


def test_the_published_lists_are_a_split_and_part_of_training_validates(root):
    made = opened(root, split="source")
    table = made.manifest
    assert set(table["split"][:4]) <= {"train", "validation"}
    assert (table["split"][4:] == "test").all()
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()


def test_a_patient_in_both_lists_is_refused_in_one_sentence(root):
    (root / "test_list.txt").write_text("00000001_002.png\n00000003_000.png\n00000003_001.png")
    (root / "train_val_list.txt").write_text("\n".join(r[0] for r in ROWS[:2]))
    with pytest.raises(InputError, match=r"patient '00000001' is in the splits test and"):
        opened(root, split="source")
    (root / "train_val_list.txt").write_text("00000001_002.png")
    with pytest.raises(InputError, match=r"film '00000001_002.png' in both"):
        cxr14.read_rows(root)


def test_rows_without_films_and_films_without_rows_are_set_aside(root):
    (root / "images" / ROWS[0][0]).rename(root / "images" / "stray.png")
    made = opened(root)
    reasons = pd.read_csv(made.folder / "rejected.csv").set_index("image_id")["reason"]
    assert reasons.to_dict() == {
        "00000001_000.png": "row without a file",
        "stray.png": "file without a row",
    }
    assert made.card["rejected"]["by_reason"] == {"file without a row": 1, "row without a file": 1}


def test_the_twelve_folders_of_the_archive_are_read_too(root):
    (root / "images_001").mkdir()
    (root / "images").rename(root / "images_001" / "images")
    assert len(opened(root)) == 6


def test_a_table_without_any_film_is_refused_but_its_rows_can_be_read(root):
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"has no film of its 6 rows. Wanted in one folder"):
        opened(root)
    rows, counts = cxr14.read_rows(root)
    assert len(rows) == 6 and counts == {"rows": 6, "patients": 3}


@pytest.mark.parametrize(
    "row, sentence",
    [
        (("00000009_000.png", "Fracture", 9, "5", "F", "PA"), "has the finding 'Fracture'; known"),
        (ROWS[0], "two rows of the film '00000001_000.png'"),
        (("00000009_000.png", "Hernia", "x", "5", "F", "PA"), "Patient ID 'x'; it is a number"),
    ],
)
def test_a_wrong_row_is_one_sentence(root, row, sentence):
    write_entries(root, [*ROWS, row])
    with pytest.raises(InputError, match=sentence):
        cxr14.read_rows(root)


def test_a_zipped_table_and_a_missing_column(root):
    (root / "Data_Entry_2017.csv").unlink()
    with pytest.raises(InputError, match=r"lacks Data_Entry_2017\*\.csv\*\. Wanted"):
        cxr14.read_rows(root)
    write_entries(root, ROWS, "Data_Entry_2017_v2020.csv.gz")
    assert len(cxr14.read_rows(root)[0]) == 6
    (root / "Data_Entry_2017_v2020.csv.gz").unlink()
    (root / "Data_Entry_2017.csv").write_text("Image Index,Patient ID\na,1\n")
    with pytest.raises(InputError, match=r"lacks the column Finding Labels; it has Image Index"):
        cxr14.read_rows(root)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the ChestX-ray14 table of shared/data")
def test_the_real_table_becomes_a_manifest_in_seconds():
    begun = time.perf_counter()
    rows, counts = cxr14.read_rows(REAL)
    gathered = build._Gathered(SourceTable(rows, rejected([]), "patient", counts))
    for place in range(len(rows)):  # as if each film could be read
        gathered._keep(place, {"remarks": []})
    config = make_data_config(source="cxr14", split="random", public_size=20_000)
    table = manifest.check(arranging.arrange(gathered.manifest(), config))
    assert time.perf_counter() - begun < 20
    assert len(table) == 112_120 and table["patient_id"].nunique() == 30_805
    assert table["split"].value_counts(normalize=True)["train"] == pytest.approx(0.7, abs=0.02)
    assert counts == {"rows": 112_120, "patients": 30_805}
    assert rows["sex_text"].value_counts().to_dict() == {"M": 63_340, "F": 48_780}
    assert rows["view_text"].value_counts().to_dict() == {"PA": 67_310, "AP": 44_810}
    assert rows["label_hernia"].sum() == 227 and rows["label_infiltration"].sum() == 19_894
