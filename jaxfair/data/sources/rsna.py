"""RSNA Pneumonia Detection Challenge (Kaggle, stage 2): its files, patients and classes."""

import json
import os
import pathlib
from typing import NamedTuple

import pandas as pd

from jaxfair.errors import InputError

__all__ = ["FINDING_LABELS", "SPEC", "MissingData", "SourceTable", "read_table"]

IMAGES = "stage_2_train_images"
LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"

SPEC = {
    "name": "rsna",
    "title": "RSNA Pneumonia Detection Challenge, stage 2",
    "population": "nih-chestxray14",
    "tasks": ("anomaly",),
    "attributes": ("sex", "age_group", "view"),
    "licence": "RSNA terms of use: research, education and other uses with attribution",
    "where": "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data",
    "mapping_where": "https://www.rsna.org/rsnai/ai-image-challenge/"
    "rsna-pneumonia-detection-challenge-2018",
    "needs": (IMAGES, LABELS, CLASSES),
    "optional": (MAPPING,),
}

HOW_TO_GET = (
    f"Wanted in one folder: {', '.join(SPEC['needs'])} (and {MAPPING}, so that patients are "
    f"known). Get {SPEC['title']} from {SPEC['where']}."
)

NORMAL, OPACITY, OTHER = "Normal", "Lung Opacity", "No Lung Opacity / Not Normal"
FINDING_LABELS = {
    "opacity": {NORMAL: 0.0, OPACITY: 1.0, OTHER: float("nan")},
    "any": {NORMAL: 0.0, OPACITY: 1.0, OTHER: 1.0},
}
"""`data.anomaly` -> class -> label_anomaly; NaN is neither trained on nor tested on."""


class MissingData(InputError):
    """The files are not there; the sentence says what was looked for and where to get it."""


class SourceTable(NamedTuple):
    """What a source knows before any picture is decoded.

    Attributes:
      rows: image_id, patient_id, path, finding, abnormal (bool), patient_abnormal (bool: any
        row of the CSV says so, also of a film that was set aside); sorted by image_id.
      rejected: image_id, file, reason, one row per thing that was set aside.
      patient_ids_known: False where patient_id is only the image id.
      counts: what was found, for the data card.
    """

    rows: pd.DataFrame
    rejected: pd.DataFrame
    patient_ids_known: bool
    counts: dict


def read_table(root: str | os.PathLike[str]) -> SourceTable:
    """Reads the two CSVs, the list of DICOM files and, if it is there, the mapping to patients.

    `patientId` in RSNA's files is an image id. The mapping file names the NIH image behind it
    ("00000013_005.png"), whose first eight digits are the patient; without that file every
    image is its own unit (protocol P2). No header is opened here.

    Raises:
      InputError: the folder or one of its files is missing, empty or not of this layout.
    """
    root = pathlib.Path(root)
    _require(root)
    classes = _read_classes(root / CLASSES)
    targets = _read_targets(root / LABELS)
    files = {path.stem: path for path in sorted((root / IMAGES).glob("*.dcm"))}
    if not files:
        raise MissingData(f"{root / IMAGES} holds no .dcm files. {HOW_TO_GET}")
    aside: list[tuple[str, str, str]] = []
    findings = _agreed(classes, targets, aside)
    aside += [(i, "", "row without a file") for i in sorted(set(findings) - set(files))]
    aside += _files_without_rows(files, findings, aside)
    ids = sorted(set(findings) & set(files))
    patients = _read_mapping(root / MAPPING)
    if patients is not None:
        aside += [(i, files[i].name, "no patient in the mapping") for i in ids if i not in patients]
        ids = [i for i in ids if i in patients]
    rows = pd.DataFrame({"image_id": ids}, dtype=object)
    rows["patient_id"] = [patients[i] for i in ids] if patients is not None else ids
    rows["path"] = [str(files[i]) for i in ids]
    rows["finding"] = [findings[i] for i in ids]
    rows["abnormal"] = rows["finding"] != NORMAL
    rows["patient_abnormal"] = rows["patient_id"].isin(_sick(classes, patients))
    counts = {"files": len(files), "class_rows": len(classes), "label_rows": len(targets),
              "repeated_class_rows": int(classes["patientId"].duplicated().sum())}  # fmt: skip
    rejected = pd.DataFrame(aside, columns=["image_id", "file", "reason"])
    return SourceTable(rows, rejected, patients is not None, counts)


def _require(root: pathlib.Path) -> None:
    if not root.is_dir():
        raise MissingData(f"The data folder {root} does not exist. {HOW_TO_GET}")
    missing = [name for name in SPEC["needs"] if not (root / name).exists()]
    if missing:
        raise MissingData(f"{root} lacks {' and '.join(missing)}. {HOW_TO_GET}")


def _read_classes(path: pathlib.Path) -> pd.DataFrame:
    classes = _read_csv(path, ["patientId", "class"])
    wrong = classes.loc[~classes["class"].isin(FINDING_LABELS["any"]), "class"]
    if len(wrong):
        known = ", ".join(repr(name) for name in FINDING_LABELS["any"])
        raise InputError(f"{path} holds the class {wrong.iloc[0]!r}; known are {known}.")
    return classes


def _read_targets(path: pathlib.Path) -> pd.DataFrame:
    targets = _read_csv(path, ["patientId", "Target"])
    wrong = targets.loc[~targets["Target"].isin(["0", "1"]), "Target"]
    if len(wrong):
        raise InputError(f"{path} holds the Target {wrong.iloc[0]!r}; it must be 0 or 1.")
    return targets


def _read_csv(path: pathlib.Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no CSV file ({error}); get it again.") from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} lacks the column {missing[0]}; it has {', '.join(table.columns)}."
        )
    if table.empty:
        raise InputError(f"{path} has no rows; get it again from {SPEC['where']}.")
    return table[columns]


def _agreed(
    classes: pd.DataFrame, targets: pd.DataFrame, aside: list[tuple[str, str, str]]
) -> dict[str, str]:
    """image_id -> class, where all rows of both CSVs agree; the others are set aside."""
    seen = classes.groupby("patientId")["class"].agg(["first", "nunique"])
    boxed = targets.groupby("patientId")["Target"].agg(["first", "nunique"]).add_prefix("box_")
    clash = set(seen.index[seen["nunique"] > 1]) | set(boxed.index[boxed["box_nunique"] > 1])
    both = seen.join(boxed, how="inner")
    clash |= set(both.index[(both["first"] == OPACITY) != (both["box_first"] == "1")])
    lacking = set(seen.index) ^ set(boxed.index)
    aside += [(i, "", "rows that contradict each other") for i in sorted(clash)]
    aside += [(i, "", "row in only one of the two CSVs") for i in sorted(lacking - clash)]
    return {str(i): c for i, c in seen["first"].items() if i not in clash and i not in lacking}


def _files_without_rows(
    files: dict[str, pathlib.Path], findings: dict[str, str], aside: list[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    named = {image_id for image_id, _, _ in aside}
    extra = sorted(set(files) - set(findings) - named)
    return [(i, files[i].name, "file without a row") for i in extra]


def _sick(classes: pd.DataFrame, patients: dict[str, str] | None) -> set[str]:
    ill = classes.loc[classes["class"] != NORMAL, "patientId"]
    return set(ill) if patients is None else {patients[i] for i in ill if i in patients}


def _read_mapping(path: pathlib.Path) -> dict[str, str] | None:
    """image_id -> the eight digits of the NIH patient, or None without a mapping file."""
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text())
        pairs = [(str(e["subset_img_id"]), str(e["img_id"])) for e in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not the mapping file: a list of objects with subset_img_id and img_id "
            f"is expected ({type(error).__name__}: {error}); get it from {SPEC['mapping_where']}."
        ) from error
    wrong = [name for _, name in pairs if not name[:8].isdigit()]
    if wrong:
        raise InputError(f"{path} names the NIH image {wrong[0]!r}; eight digits come first.")
    return {image_id: name[:8] for image_id, name in pairs}
