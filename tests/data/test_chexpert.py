import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.data import dataset
from jaxfair.data.config import make_data_config
from jaxfair.data.sources import chexpert, reports
from jaxfair.errors import InputError

PLACE = "CheXpert-v1.0-small"
FILMS = [  # path, sex, age, side, AP/PA, and the labels that are not blank
    ("train/patient00001/study1/view1_frontal.jpg", "Female", 68, "Frontal", "AP",
     {"Edema": 1.0, "Pneumonia": -1.0}),
    ("train/patient00001/study1/view2_lateral.jpg", "Female", 68, "Lateral", "",
     {"Edema": 1.0, "Pneumonia": -1.0}),
    ("train/patient00001/study2/view1_frontal.jpg", "Female", 69, "Frontal", "PA",
     {"No Finding": 1.0}),
    ("train/patient00002/study1/view1_frontal.jpg", "Unknown", 0, "Frontal", "LL",
     {"Edema": 0.0, "Atelectasis": -1.0, "Pneumonia": -1.0}),
    ("train/patient00003/study1/view1_frontal.jpg", "Male", 41, "Frontal", "PA", {"Fracture": 1.0}),
    ("valid/patient64541/study1/view1_frontal.jpg", "Male", 73, "Frontal", "AP",
     dict.fromkeys(reports.LABELS, 0.0) | {"Cardiomegaly": 1.0}),
]  # fmt: skip
RACES = [
    ("patient00001", "White, non-Hispanic"),
    ("patient00001", "Asian"),
    ("patient00002", "Unknown"),
    ("patient00002", "Black or African American"),
    ("patient00003", "Pacific Islander, non-Hispanic"),
]


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "renamed by the user"
    rng = np.random.default_rng(0)
    for path, *_ in FILMS:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 36)).astype(np.uint8)).save(place / path)
    write_tables(place, FILMS)
    races = pd.DataFrame(RACES, columns=["PATIENT", "PRIMARY_RACE"])
    races.assign(GENDER="Female", AGE_AT_CXR=1, ETHNICITY="").to_excel(
        place / "CHEXPERT DEMO.xlsx", index=False
    )
    return place


def write_tables(place, films):
    columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"]
    for part, name in (("train/", "train.csv"), ("valid/", "valid.csv")):
        table = pd.DataFrame([f[:5] for f in films if f[0].startswith(part)], columns=columns)
        table["Path"] = f"{PLACE}/" + table["Path"]
        found = [f[5] for f in films if f[0].startswith(part)]
        for label in reports.LABELS:
            table[label] = [row.get(label, "") for row in found]
        table.to_csv(place / name, index=False)


def opened(root, **fields):
    fields = {"source": "chexpert", "image_size": 16, "prepared": str(root.parent / "set")} | fields
    return dataset.open_dataset(make_data_config(root=str(root), **fields), progress=False)


def test_rows_are_not_mixed_and_blank_is_absent(root):
    table = opened(root).manifest.set_index("image_id")
    second = table.loc["train/patient00001/study2/view1_frontal"]
    assert second["label_no_finding"] == 1 and second["label_edema"] == 0
    assert second["label_pneumonia"] == 0 and second["age"] == 69
    assert table["label_no_finding"].notna().all() and len(table) == 6


@pytest.mark.parametrize("policy, value", [("ignore", np.nan), ("zeros", 0.0), ("ones", 1.0)])
def test_uncertain_labels_follow_the_policy_without_a_new_prepare(root, policy, value):
    opened(root)
    table = opened(root, uncertain=policy).manifest.set_index("image_id")
    unsure = table.loc["train/patient00002/study1/view1_frontal"]
    np.testing.assert_array_equal(
        unsure[["label_pneumonia", "label_atelectasis"]].astype(float), value
    )
    assert unsure["label_edema"] == 0 and table["label_fracture"].sum() == 1


def test_a_policy_changes_the_digest(root):
    assert opened(root).digest != opened(root, uncertain="ones").digest


def test_unknown_sex_age_zero_and_odd_views_are_unknown(root):
    made = opened(root)
    table = made.manifest.set_index("image_id")
    odd = table.loc["train/patient00002/study1/view1_frontal"]
    assert (odd["sex"], odd["age_group"], odd["view"]) == ("unknown", "unknown", "unknown")
    assert table.loc["train/patient00001/study1/view2_lateral", "view"] == "lateral"
    assert made.card["found"] == {"rows": 6, "age_zero": 1, "contradictory_races": 1}


def test_contradictory_races_are_unknown_and_silent_rows_do_not_count(root):
    race = opened(root).manifest.groupby("patient_id")["race"].first()
    assert race.to_dict() == {
        "patient00001": "unknown",
        "patient00002": "black",
        "patient00003": "other",
        "patient64541": "unknown",
    }


def test_races_may_be_a_csv_or_missing(root):
    (root / "CHEXPERT DEMO.xlsx").unlink()
    assert "race" not in opened(root).manifest
    races = pd.DataFrame(RACES, columns=["PATIENT", "PRIMARY_RACE"])
    races.to_csv(root / "CHEXPERT DEMO.csv", index=False)
    table = opened(root, prepared=str(root.parent / "other")).manifest
    assert set(table["race"]) == {"unknown", "black", "other"}


def test_a_file_that_is_no_excel_table_is_one_sentence(root):
    (root / "CHEXPERT DEMO.xlsx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"DEMO\.xlsx lacks the column PATIENT"):
        opened(root)


@pytest.mark.parametrize("split", ["random", "folds", "source"])
def test_no_patient_crosses_a_split(root, split):
    made = opened(root, split=split)
    assert (made.manifest.groupby("patient_id")["split"].nunique() == 1).all()
    assert made.unit == "patient"


def test_valid_csv_is_the_test_of_the_published_split(root):
    made = opened(root, split="source")
    assert made.manifest.loc[made.rows("test"), "patient_id"].tolist() == ["patient64541"]


def test_films_that_are_not_there_are_set_aside_and_none_at_all_is_refused(root):
    (root / FILMS[0][0]).unlink()
    made = opened(root)
    rejected = pd.read_csv(made.folder / "rejected.csv")
    assert rejected.to_numpy().tolist() == [
        ["train/patient00001/study1/view1_frontal", "view1_frontal.jpg", "row without a file"]
    ]
    for path in root.rglob("*.jpg"):
        path.unlink()
    with pytest.raises(InputError, match=r"holds none of the 6 films. Wanted is the folder"):
        opened(root, prepared=str(root.parent / "none"))


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda t: t.assign(Edema=2), "label '2' in column Edema .5 such.; a label is 1, 0, -1"),
        (lambda t: t.assign(Path="train/one.jpg"), "Path 'train/one.jpg'; .*patientNNNNN"),
        (lambda t: t.drop(columns="Sex"), "lacks the column Sex"),
        (lambda t: pd.concat([t, t]), "lists the film 'train/patient00001.*twice"),
    ],
)
def test_a_wrong_table_is_one_sentence(root, change, sentence):
    change(pd.read_csv(root / "train.csv")).to_csv(root / "train.csv", index=False)
    config = make_data_config(source="chexpert", root=str(root))
    with pytest.raises(InputError, match=sentence):
        chexpert.read_table(root, config.options)
