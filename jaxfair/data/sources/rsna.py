"""RSNA Pneumonia Detection Challenge (Kaggle, stage 2): its files, patients and classes."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import pandas as pd

from jaxfair.data import pixels
from jaxfair.data.checks import check_choice
from jaxfair.data.sources.base import MissingData, Options, SourceTable, read_csv, require, sizes_in
from jaxfair.errors import InputError
from jaxfair.schema import ATTRIBUTES

__all__ = [
    "FINDING_LABELS",
    "HOW_TO_GET",
    "OPTIONS",
    "SPEC",
    "RsnaOptions",
    "inventory",
    "label",
    "read_pixels",
    "read_table",
]

IMAGES = "stage_2_train_images"
LABELS = "stage_2_train_labels.csv"
CLASSES = "stage_2_detailed_class_info.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"

SPEC: dict[str, Any] = {
    "name": "rsna",
    "title": "RSNA Pneumonia Detection Challenge, stage 2",
    "population": "nih-chestxray14",
    "tasks": ("anomaly",),
    "attributes": ATTRIBUTES,
    "licence": "RSNA terms of use: research, education and other uses with attribution",
    "where": "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data",
    "mapping_where": "https://www.rsna.org/rsnai/ai-image-challenge/"
    "rsna-pneumonia-detection-challenge-2018",
    "needs": (IMAGES, LABELS, CLASSES),
    "optional": (MAPPING,),
    "ndim": 2,
    "modalities": ("CR", "DX"),
    "channels": (1,),
    "patient_hint": f"put {MAPPING} into the data folder and prepare again",
    "config": "configs/rsna_fae.py",
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


@dataclasses.dataclass(frozen=True)
class RsnaOptions(Options):
    """What RSNA's classes can be asked.

    Attributes:
      anomaly: "opacity" (other abnormal films are left out) or "any" (they are anomalies too).
    """

    anomaly: str = "opacity"

    def rule(self) -> dict[str, Any]:
        """`anomaly`."""
        return {"anomaly": self.anomaly}

    def __post_init__(self) -> None:
        check_choice(self, "anomaly", FINDING_LABELS)


OPTIONS = RsnaOptions
read_pixels = pixels.read_square


def read_table(root: str | os.PathLike[str], options: Options | None = None) -> SourceTable:
    """Reads the two CSVs, the list of DICOM files and, if it is there, the mapping to patients.

    `patientId` in RSNA's files is an image id. The mapping file names the NIH image behind it
    ("00000013_005.png"), whose first eight digits are the patient; without that file every
    image is its own unit (protocol P2). No header is opened here, and no option
    matters. Beside the columns of every source a row has `finding` (the class), `abnormal`
    and `patient_abnormal` (any row of the CSV says so, also of a film that was set aside).

    Raises:
      InputError: the folder or one of its files is missing, empty or not of this layout.
    """
    root = pathlib.Path(root)
    require(root, SPEC["needs"], HOW_TO_GET)
    classes = _read_classes(root / CLASSES)
    targets = _read_targets(root / LABELS)
    files = {path.stem: path for path in sorted((root / IMAGES).glob("*.[dD][cC][mM]"))}
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
    unit = "image" if patients is None else "patient"
    return SourceTable(rows, rejected, unit, counts)


def inventory(
    root: pathlib.Path, options: Options
) -> tuple[list[pathlib.Path], list[tuple[str, int]]]:
    """The tables, there or not, and names and sizes of the DICOM files."""
    return [root / name for name in (LABELS, CLASSES, MAPPING)], sizes_in(root / IMAGES)


def label(rows: pd.DataFrame, options: RsnaOptions) -> pd.DataFrame:
    """Adds `label_anomaly` by `data.anomaly`."""
    labels = rows["finding"].map(FINDING_LABELS[options.anomaly])
    return rows.assign(label_anomaly=labels.astype(float))


def _read_classes(path: pathlib.Path) -> pd.DataFrame:
    classes = read_csv(path, ["patientId", "class"], SPEC["where"])
    wrong = classes.loc[~classes["class"].isin(FINDING_LABELS["any"]), "class"]
    if len(wrong):
        known = ", ".join(repr(name) for name in FINDING_LABELS["any"])
        raise InputError(f"{path} holds the class {wrong.iloc[0]!r}; known are {known}.")
    return classes


def _read_targets(path: pathlib.Path) -> pd.DataFrame:
    targets = read_csv(path, ["patientId", "Target"], SPEC["where"])
    wrong = targets.loc[~targets["Target"].isin(["0", "1"]), "Target"]
    if len(wrong):
        raise InputError(f"{path} holds the Target {wrong.iloc[0]!r}; it must be 0 or 1.")
    return targets


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
