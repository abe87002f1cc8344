"""How each film source publishes its files: folders, names, tables and label codes.

What is drawn stands in the public label sets so: congestion is Edema, an effusion of either side
Pleural Effusion (Effusion), infiltrates of either side Pneumonia, Consolidation and, in
ChestX-ray14, Infiltration, bands of either side Atelectasis; Lung Opacity is any of infiltrates,
congestion and atelectasis. Labels that are never drawn are blank or negative.
"""

import gzip
import hashlib
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxfair.data.sources.reports import LABELS
from jaxfair.files import write_bytes, write_table, write_text
from jaxfair.phantom.thorax_findings import FINDINGS

__all__ = ["LAYOUTS", "Layout", "report_labels"]

UNCERTAIN = {"Pneumonia": 0.4, "Atelectasis": 0.4, "Consolidation": 0.2, "Edema": 0.15}
"""Share of the present that the report leaves open; of all other findings 5 %."""

RACE_OF_CHEXPERT = {
    "white": "White",
    "black": "Black or African American",
    "asian": "Asian",
    "hispanic": "Other, Hispanic",
    "other": "Native Hawaiian or Other Pacific Islander",
    "unknown": "Unknown",
}
RACE_OF_MIMIC = {
    "white": "WHITE",
    "black": "BLACK/AFRICAN AMERICAN",
    "asian": "ASIAN",
    "hispanic": "HISPANIC/LATINO - PUERTO RICAN",
    "other": "OTHER",
    "unknown": "UNABLE TO OBTAIN",
}


class Layout(NamedTuple):
    """How a source lays out its films.

    Attributes:
      laterals: share of studies with a lateral film.
      lowest: height of the lowest film, as a share of its width.
      place: table of films -> path of each film's file, relative to the root.
      write: (table with `path` and `height`, seed, folder) writes the source's tables.
    """

    laterals: float
    lowest: float
    place: Callable[[pd.DataFrame], list[str]]
    write: Callable[[pd.DataFrame, int, pathlib.Path], None]


def report_labels(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The labels that a labeller finds in the reports: one row per film, equal within a study.

    Returns:
      Columns `LABELS`: 1 present, 0 absent, -1 uncertain, NaN not mentioned.
    """
    rng = np.random.default_rng([seed, 20])
    of_study = table.groupby(["patient", "study"], sort=False).ngroup().to_numpy()
    labels = pd.DataFrame(index=table.index)
    found = _present(table)
    for name in LABELS[1:]:
        here = found.get(name, np.zeros(len(table), bool))
        chance = rng.random(of_study.max() + 1)[of_study]
        absent = np.where(chance < 0.15, 0.0, np.where(chance > 0.985, -1.0, np.nan))
        labels[name] = np.where(here, np.where(chance < UNCERTAIN.get(name, 0.05), -1, 1), absent)
    healthy = ~labels.isin([1, -1]).any(axis=1)
    labels.insert(0, "No Finding", np.where(healthy, 1.0, np.nan))
    return labels


def _present(table: pd.DataFrame) -> dict[str, np.ndarray]:
    def either(kind: str) -> np.ndarray:
        return (table[f"{kind}_right"] | table[f"{kind}_left"]).to_numpy()

    infiltrates, bands = either("pneumonic_infiltrates"), either("atelectasis")
    congestion = table["congestion"].to_numpy()
    return {
        "Cardiomegaly": table["cardiomegaly"].to_numpy(),
        "Lung Opacity": infiltrates | bands | congestion,
        "Edema": congestion,
        "Consolidation": infiltrates,
        "Pneumonia": infiltrates,
        "Atelectasis": bands,
        "Pleural Effusion": either("pleural_effusion"),
    }


def _place_chexpert(table: pd.DataFrame) -> list[str]:
    return [
        f"{'valid' if row['patient'] % 10 == 6 else 'train'}/patient{row['patient']:05d}/"
        f"study{row['study']}/view{row['film']}_"
        f"{'lateral' if row['view'] == 'LATERAL' else 'frontal'}.jpg"
        for row in table.to_dict("records")
    ]


def _write_chexpert(table: pd.DataFrame, seed: int, folder: pathlib.Path) -> None:
    lateral = table["view"] == "LATERAL"
    rows = pd.DataFrame({"Path": "CheXpert-v1.0-small/" + table["path"]})
    rows["Sex"] = table["listed_sex"].map({"F": "Female", "M": "Male", "": "Unknown"})
    rows["Age"] = table["listed_age"]
    rows["Frontal/Lateral"] = np.where(lateral, "Lateral", "Frontal")
    rows["AP/PA"] = table["view"].mask(lateral)
    rows = pd.concat([rows, report_labels(table, seed)], axis=1)
    valid = table["path"].str.startswith("valid/")
    read = rows[valid].copy()  # by radiologists, who leave nothing open
    names = list(LABELS)
    read[names] = read[names].fillna(0.0).abs()
    write_table(folder / "train.csv", rows[~valid])
    write_table(folder / "valid.csv", read)
    _write_races(table.drop_duplicates("patient"), folder)


def _write_races(people: pd.DataFrame, folder: pathlib.Path) -> None:
    races = pd.DataFrame({"PATIENT": [f"patient{p:05d}" for p in people["patient"]]})
    races["GENDER"] = people["sex"].map({"F": "Female", "M": "Male"}).to_numpy()
    races["AGE_AT_CXR"] = people["age"].to_numpy()
    races["PRIMARY_RACE"] = people["race"].map(RACE_OF_CHEXPERT).to_numpy()
    latin = (people["race"] == "hispanic").to_numpy()
    races["ETHNICITY"] = np.where(latin, "Hispanic/Latino", "Non-Hispanic/Non-Latino")
    again = races[people["two_races"].to_numpy()].copy()
    again["PRIMARY_RACE"] = np.where(again["PRIMARY_RACE"] == "White", "Asian", "White")
    write_table(folder / "CHEXPERT DEMO.csv", pd.concat([races, again]))


def _place_cxr14(table: pd.DataFrame) -> list[str]:
    number = table.groupby("patient").cumcount()
    return [f"images/{p:08d}_{k:03d}.png" for p, k in zip(table["patient"], number)]


def _write_cxr14(table: pd.DataFrame, seed: int, folder: pathlib.Path) -> None:
    rng = np.random.default_rng([seed, 21])
    found = _present(table)
    names = {"Atelectasis": found["Atelectasis"], "Cardiomegaly": found["Cardiomegaly"]}
    names["Consolidation"] = found["Consolidation"] & (rng.random(len(table)) < 0.4)
    names |= {"Edema": found["Edema"], "Effusion": found["Pleural Effusion"]}
    names["Infiltration"] = found["Pneumonia"]
    names["Pneumonia"] = found["Pneumonia"] & (rng.random(len(table)) < 0.3)
    rows = pd.DataFrame({"Image Index": table["path"].str.removeprefix("images/")})
    rows["Finding Labels"] = [
        "|".join(name for name, here in names.items() if here[i]) or "No Finding"
        for i in range(len(table))
    ]
    rows["Follow-up #"] = table.groupby("patient").cumcount()
    rows["Patient ID"], rows["Patient Age"] = table["patient"], table["listed_age"]
    rows["Patient Gender"], rows["View Position"] = table["listed_sex"], table["view"]
    rows["OriginalImage[Width"], rows["Height]"] = 2500, 2048
    rows["OriginalImagePixelSpacing[x"], rows["y]"] = 0.168, 0.168
    write_table(folder / "Data_Entry_2017_v2020.csv", rows)
    test = table["patient"] % 5 == 1
    for name, chosen in (("train_val_list.txt", ~test), ("test_list.txt", test)):
        write_text(folder / name, "\n".join(rows.loc[chosen, "Image Index"]))


def _spread(number: int, start: int) -> int:
    """1, 2, ... to numbers of eight digits that look like MIMIC's; no two alike."""
    return start + number * 7_919_033 % 10_000_000


def _mimic_ids(table: pd.DataFrame) -> pd.DataFrame:
    study = table.groupby(["patient", "study"], sort=False).ngroup() + 1 + table["index"].min()
    ids = pd.DataFrame(index=table.index)
    names = [hashlib.sha256(f"PHANTOM {i}".encode()).hexdigest() for i in table["index"]]
    ids["dicom_id"] = ["-".join(name[i : i + 8] for i in range(0, 40, 8)) for name in names]
    ids["subject_id"] = [_spread(p, 10_000_000) for p in table["patient"]]
    ids["study_id"] = [_spread(s, 50_000_000) for s in study]
    return ids


def _place_mimic(table: pd.DataFrame) -> list[str]:
    return [
        f"files/p{str(subject)[:2]}/p{subject}/s{study}/{dicom}.jpg"
        for dicom, subject, study in _mimic_ids(table).to_numpy()
    ]


def _write_mimic(table: pd.DataFrame, seed: int, folder: pathlib.Path) -> None:
    ids = _mimic_ids(table)
    meta = ids.copy()
    portable = table["view"] == "AP"
    words = np.where(portable, "CHEST (PORTABLE AP)", "CHEST (PA AND LAT)")
    meta["PerformedProcedureStepDescription"] = words
    meta["ViewPosition"] = table["view"]
    meta["Rows"], meta["Columns"] = table["height"], table["width"]
    meta["StudyDate"] = _year(table) * 10_000 + 315
    meta["StudyTime"] = 101_530.25
    meta["ProcedureCodeSequence_CodeMeaning"] = words
    meta["ViewCodeSequence_CodeMeaning"] = table["view"].map(
        {"AP": "antero-posterior", "PA": "postero-anterior", "LATERAL": "lateral"}
    )
    meta["PatientOrientationCodeSequence_CodeMeaning"] = np.where(portable, "Recumbent", "Erect")
    _write_gz(folder / "mimic-cxr-2.0.0-metadata.csv.gz", meta)
    labels = pd.concat([ids[["subject_id", "study_id"]], report_labels(table, seed)], axis=1)
    labels = labels[["subject_id", "study_id", *sorted(LABELS)]]
    reports = labels[~table["no_report"]].drop_duplicates("study_id")
    _write_gz(folder / "mimic-cxr-2.0.0-chexpert.csv.gz", reports)
    splits = ids[["dicom_id", "study_id", "subject_id"]]
    parts = {6: "validate", 7: "test"}
    splits = splits.assign(split=(table["patient"] % 10).map(parts).fillna("train"))
    _write_gz(folder / "mimic-cxr-2.0.0-split.csv.gz", splits)
    _write_hospital(table.assign(subject_id=ids["subject_id"]).drop_duplicates("patient"), folder)


def _year(table: pd.DataFrame) -> pd.Series:
    return 2110 + table["patient"] % 80 + table["study"]


def _write_hospital(people: pd.DataFrame, folder: pathlib.Path) -> None:
    """MIMIC-IV's two tables; a person whose sex is not known is in neither."""
    people = people[people["listed_sex"] != ""]
    patients = pd.DataFrame({"subject_id": people["subject_id"], "gender": people["listed_sex"]})
    patients["anchor_age"], patients["anchor_year"] = people["listed_age"], _year(people)
    patients["anchor_year_group"], patients["dod"] = "2014 - 2016", ""
    _write_gz(folder / "patients.csv.gz", patients)
    stays = people.loc[people.index.repeat(1 + people["two_races"])]
    race = stays["race"].map(RACE_OF_MIMIC)
    second = stays["patient"].duplicated()
    rows = pd.DataFrame({"subject_id": stays["subject_id"]})
    rows["hadm_id"] = 20_000_000 + np.arange(len(rows))
    rows["admittime"] = _year(stays).astype(str) + "-03-14 08:00:00"
    rows["dischtime"] = _year(stays).astype(str) + "-03-18 12:00:00"
    rows["admission_type"], rows["insurance"], rows["language"] = "EW EMER.", "Other", "English"
    rows["race"] = race.mask(second, race.map(lambda r: "ASIAN" if r == "WHITE" else "WHITE"))
    rows["hospital_expire_flag"] = 0
    _write_gz(folder / "admissions.csv.gz", rows)


def _place_table(table: pd.DataFrame) -> list[str]:
    names = table[["patient", "study", "film"]].to_numpy()
    return [f"images/{patient:05d}_{study}_{film}.png" for patient, study, film in names]


def _write_table(table: pd.DataFrame, seed: int, folder: pathlib.Path) -> None:
    rows = pd.DataFrame({"image": table["path"], "patient": table["patient"]})
    rows["sex"] = table["listed_sex"]
    rows["age"] = table["listed_age"].astype(object).mask(table["listed_sex"] == "", "")
    rows["view"] = table["view"]
    rows[list(FINDINGS)] = table[list(FINDINGS)].astype(int)
    write_table(folder / "table.csv", rows)


def _write_gz(path: pathlib.Path, table: pd.DataFrame) -> None:
    write_bytes(path, gzip.compress(table.to_csv(index=False).encode(), mtime=0))


LAYOUTS = {
    "chexpert": Layout(0.15, 0.82, _place_chexpert, _write_chexpert),
    "cxr14": Layout(0.0, 1.0, _place_cxr14, _write_cxr14),
    "mimic_cxr": Layout(0.15, 0.82, _place_mimic, _write_mimic),
    "table": Layout(0.02, 0.90, _place_table, _write_table),
}
