import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.data import dataset
from jaxfair.data.config import make_data_config
from jaxfair.data.sources import mimic_cxr, reports
from jaxfair.errors import InputError

FILMS = pd.DataFrame(
    [
        ("d1", "10000032", "50414267", "PA", "21800506", "train"),
        ("d2", "10000032", "50414267", "LATERAL", "21800506", "train"),
        ("d3", "10000032", "53189527", "AP", "21810606", "train"),
        ("d4", "10000764", "57375967", "", "21320101", "validate"),
        ("d5", "11000898", "50771383", "LL", "21880803", "test"),
        ("d6", "12000935", "50578979", "AP", "21870101", "train"),
    ],
    columns=["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "split"],
)
FOUND = {"50414267": {"Edema": -1.0}, "53189527": {"No Finding": 1.0}, "57375967": {"Edema": 1.0},
         "50771383": {"Pneumonia": 0.0}}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """Six films; study 50578979 has no labels, subject 11000898 is in no table of MIMIC-IV."""
    place = tmp_path / "mimic"
    rng = np.random.default_rng(0)
    for row in FILMS.itertuples():
        path = place / path_of(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 26)).astype(np.uint8)).save(path)
    name = "mimic-cxr-2.0.0-{}.csv.gz"
    meta = FILMS.drop(columns="split").assign(Rows=30, Columns=26, StudyTime=1.5)
    meta.to_csv(place / name.format("metadata"), index=False)
    FILMS[["dicom_id", "study_id", "subject_id", "split"]].to_csv(
        place / name.format("split"), index=False
    )
    labels = pd.DataFrame({"subject_id": 1, "study_id": list(FOUND)})
    for label in reports.LABELS:
        labels[label] = [found.get(label) for found in FOUND.values()]
    labels.to_csv(place / name.format("chexpert"), index=False)
    (place / "hosp").mkdir()
    pd.DataFrame(
        {"subject_id": [10000032, 10000764, 12000935], "gender": ["F", "M", "M"],
         "anchor_age": [52, 0, 91], "anchor_year": [2180, 2132, 2150]}
    ).to_csv(place / "hosp" / "patients.csv.gz", index=False)  # fmt: skip
    write_stays(place, "race")
    return place


def path_of(row):
    person = row.subject_id
    return f"files/p{person[:2]}/p{person}/s{row.study_id}/{row.dicom_id}.jpg"


def write_stays(place, column):
    people = [10000032, 10000032, 10000764, 10000764]
    races = ["OTHER", "WHITE", "UNKNOWN", "BLACK/CAPE VERDEAN"]
    table = pd.DataFrame({"subject_id": people, column: races})
    table.to_csv(place / "hosp" / "admissions.csv.gz", index=False)


def opened(root, **fields):
    fields = {
        "source": "mimic_cxr",
        "image_size": 16,
        "prepared": str(root.parent / "set"),
    } | fields
    return dataset.open_dataset(make_data_config(root=str(root), **fields), progress=False)


def test_labels_come_from_the_study_and_views_from_the_film(root):
    table = opened(root, uncertain="ones").manifest.set_index("image_id")
    assert table["view"].to_dict() == {
        "d1": "PA", "d2": "lateral", "d3": "AP", "d4": "unknown", "d5": "lateral"
    }  # fmt: skip
    assert table["label_edema"].tolist() == [1, 1, 0, 1, 0]
    assert table["label_no_finding"].tolist() == [0, 0, 1, 0, 0]
    assert np.isnan(opened(root).manifest["label_edema"][0])


def test_age_is_that_of_the_study_and_what_nobody_knows_is_unknown(root):
    table = opened(root).manifest.set_index("image_id")
    np.testing.assert_array_equal(table["age"], [52, 52, 53, np.nan, np.nan])
    assert table["sex"].tolist() == ["F", "F", "F", "M", "unknown"]


@pytest.mark.parametrize("column", ["race", "ethnicity"])
def test_contradictory_races_are_unknown_in_both_versions(root, column):
    write_stays(root, column)
    made = opened(root)
    race = made.manifest.groupby("patient_id")["race"].first()
    assert race.to_dict() == {"10000032": "unknown", "10000764": "black", "11000898": "unknown"}
    assert made.card["found"]["contradictory_races"] == 1


def test_without_mimic_iv_sex_and_age_are_unknown(root):
    for path in (root / "hosp").iterdir():
        path.unlink()
    table = opened(root).manifest
    assert set(table["sex"]) == {"unknown"} and table["age"].isna().all() and "race" not in table


def test_films_without_labels_or_files_are_set_aside(root):
    (root / path_of(FILMS.iloc[2])).unlink()
    made = opened(root)
    rejected = pd.read_csv(made.folder / "rejected.csv").set_index("image_id")["reason"]
    assert rejected.to_dict() == {"d6": "study without labels", "d3": "row without a file"}


@pytest.mark.parametrize("split", ["random", "folds", "source"])
def test_no_patient_crosses_a_split(root, split):
    made = opened(root, split=split)
    assert (made.manifest.groupby("patient_id")["split"].nunique() == 1).all()
    assert made.unit == "patient" and made.population == "mimic-cxr"


def test_the_published_split_is_read(root):
    made = opened(root, split="source")
    assert made.manifest["split"].tolist() == ["train", "train", "train", "validation", "test"]


@pytest.mark.parametrize(
    "name, change, sentence",
    [
        ("metadata", lambda t: t.drop(columns="StudyDate"), "lacks the column StudyDate"),
        ("metadata", lambda t: pd.concat([t, t]), "lists the dicom_id 'd1' twice"),
        ("chexpert", lambda t: pd.concat([t, t]), "lists the study_id '50414267' twice"),
        ("metadata", lambda t: t.assign(subject_id=7), "subject_id '7'; it has eight digits"),
        ("chexpert", lambda t: t.assign(Edema=2), "label '2' in column Edema"),
        ("split", lambda t: t.assign(split="half"), "row 2: 'half' is no split"),
    ],
)
def test_a_wrong_table_is_one_sentence(root, name, change, sentence):
    path = root / f"mimic-cxr-2.0.0-{name}.csv.gz"
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(InputError, match=sentence):
        mimic_cxr.read_table(root, mimic_cxr.OPTIONS())


def test_missing_parts_are_named_with_where_to_get_them(root):
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    with pytest.raises(InputError, match=r"lacks mimic-cxr-2\*-chexpert.*physionet.org"):
        opened(root)
