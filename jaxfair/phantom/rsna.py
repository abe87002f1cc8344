"""A stand-in for RSNA: drawn films in real DICOM files, in exactly the Kaggle stage-2 layout.

What it shares with the real data are the file layout and the joint frequencies of class, view,
sex and age. The planted gap is in the brightness of opacities.
"""

import hashlib
import pathlib

import numpy as np
import pandas as pd

from jaxfair.data import workers
from jaxfair.data.sources import rsna as layout
from jaxfair.files import write_json, write_table
from jaxfair.phantom import encode, thorax
from jaxfair.phantom.config import PhantomConfig
from jaxfair.schema import age_groups

__all__ = ["draw", "draw_table"]

BANDS = ((1, 17), (18, 30), (31, 45), (46, 60), (61, 75), (76, 95), (111, 155))
IMPOSSIBLE_AGES = (148, 150, 151, 153, 155)  # the five that the real headers hold
REAL_COUNTS = {  # (Target, view, sex): images per age band, of the 26,684 real ones
    (0, "AP", "F"): (146, 458, 796, 1067, 610, 98, 0),
    (0, "AP", "M"): (243, 692, 912, 1504, 894, 89, 0),
    (0, "PA", "F"): (199, 765, 1496, 2173, 1076, 130, 2),
    (0, "PA", "M"): (303, 972, 1623, 2605, 1623, 193, 3),
    (1, "AP", "F"): (119, 260, 503, 662, 347, 61, 0),
    (1, "AP", "M"): (206, 504, 642, 852, 443, 65, 0),
    (1, "PA", "F"): (33, 60, 138, 206, 104, 9, 0),
    (1, "PA", "M"): (27, 121, 171, 253, 201, 25, 0),
}
NORMAL_SHARE = 8_851 / (8_851 + 11_821)  # of Target 0; the rest is abnormal without opacity
CLASSES = {
    "normal": layout.NORMAL,
    "opacity": layout.OPACITY,
    "other": layout.OTHER,
}
ENCODINGS = {"jpeg8": 0.6, "plain8": 0.2, "plain12": 0.1, "plain16": 0.1}  # most as the real
INVERTED_SHARE = 0.1
SHARES_A_PATIENT = 0.3


def draw(config: PhantomConfig, folder: pathlib.Path, *, progress: bool = True) -> None:
    """Draws the films and writes them, the two CSVs and the mapping into the empty `folder`."""
    (folder / layout.IMAGES).mkdir()
    table = draw_table(config)
    jobs = [(config, row, str(folder)) for row in table.to_dict("records")]
    for _ in workers.parallel(_write_film, jobs, label="draw PHANTOM", progress=progress):
        pass
    _write_tables(table, folder)


def draw_table(config: PhantomConfig) -> pd.DataFrame:
    """Draws who is filmed: one row per film, joint frequencies as in `REAL_COUNTS`.

    Returns:
      Columns index, image_id, patient (int), film (running number of the patient's films),
      finding, view, sex, age (int), gap (bool).
    """
    rng = np.random.default_rng([config.seed, 0])
    rows = [cell for cell, n in _cell_counts(config.n_images).items() for _ in range(n)]
    table = pd.DataFrame(rows, columns=["finding", "view", "sex", "band"])
    table = table.iloc[rng.permutation(len(table))].reset_index(drop=True)
    table["age"] = [_draw_age(band, rng) for band in table["band"]]
    table["patient"] = _draw_patients(table, rng)
    table["age"] = table.groupby("patient")["age"].transform("first")
    table["film"] = table.groupby("patient").cumcount()
    table["index"] = np.arange(len(table))
    table["image_id"] = [_image_id(config.seed, i) for i in table["index"]]
    groups = table[["sex", "view"]].assign(age_group=age_groups(table["age"]))
    table["gap"] = (groups == config.gap_group).any(axis=1)
    return table.drop(columns="band")


def _cell_counts(n: int) -> dict[tuple[str, str, str, int], int]:
    """Images per (finding, view, sex, band): largest remainders; impossible ages at least once."""
    shares: dict[tuple[str, str, str, int], float] = {}
    for (target, view, sex), bands in REAL_COUNTS.items():
        for band, count in enumerate(bands):
            if target:
                shares["opacity", view, sex, band] = count
            else:
                shares["normal", view, sex, band] = count * NORMAL_SHARE
                shares["other", view, sex, band] = count * (1 - NORMAL_SHARE)
    exact = {cell: n * share / 26_684 for cell, share in shares.items() if share}
    counts = {cell: int(value) for cell, value in exact.items()}
    if not any(counts[cell] for cell in counts if cell[3] == 6):
        counts["normal", "PA", "M", 6] = 1
    by_remainder = sorted(exact, key=lambda cell: counts[cell] - exact[cell])
    for cell in by_remainder[: n - sum(counts.values())]:
        counts[cell] += 1
    return counts


def _draw_age(band: int, rng: np.random.Generator) -> int:
    if band == len(BANDS) - 1:
        return int(rng.choice(IMPOSSIBLE_AGES))
    low, high = BANDS[band]
    if band == 0:  # few of the real children are small
        return round(rng.triangular(low, high, high))
    if band == len(BANDS) - 2:
        return int(rng.triangular(low, low, high))
    return int(rng.integers(low, high + 1))


def _draw_patients(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """A film joins an earlier patient of the same sex and age band with a fixed probability.

    Four times out of five that patient has had the same finding before.
    """
    patients = np.empty(len(table), int)
    known: dict[tuple[str, int, str], list[int]] = {}
    for i, row in enumerate(table.to_dict("records")):
        kind = str(rng.choice(list(CLASSES))) if rng.random() < 0.2 else row["finding"]
        earlier = known.get((row["sex"], row["band"], kind), [])
        join = earlier and rng.random() < SHARES_A_PATIENT
        patients[i] = earlier[int(rng.integers(len(earlier)))] if join else i
        known.setdefault((row["sex"], row["band"], row["finding"]), []).append(patients[i])
    return pd.factorize(patients)[0] + 1


def _image_id(seed: int, index: int) -> str:
    """Looks like an RSNA id, and is none."""
    return hashlib.sha256(f"PHANTOM {seed} {index}".encode()).hexdigest()[:36]


def _write_film(job: tuple[PhantomConfig, dict, str]) -> None:
    config, row, root = job
    path = pathlib.Path(root) / layout.IMAGES / f"{row['image_id']}.dcm"
    person = np.random.default_rng([config.seed, 1, row["patient"]])
    rng = np.random.default_rng([config.seed, 2, row["index"]])
    body = thorax.draw_anatomy(row["sex"], min(row["age"], 90), rng=person)
    contrast = config.gap_contrast if row["gap"] else 1.0
    film = thorax.draw_film(
        body, row["view"], row["finding"], config.pixels, contrast=contrast, rng=rng
    )
    path.write_bytes(_encoded(film, row, rng))


def _encoded(film: np.ndarray, row: dict, rng: np.random.Generator) -> bytes:
    """How a film is encoded depends on chance alone, never on what it shows."""
    return encode.dicom_bytes(
        film,
        encoding=str(rng.choice(list(ENCODINGS), p=list(ENCODINGS.values()))),
        inverted=bool(rng.random() < INVERTED_SHARE),
        image_id=row["image_id"],
        sex=row["sex"],
        age=f"{row['age']:03d}Y" if rng.random() < 0.1 else str(row["age"]),
        view=row["view"],
        remark="PHANTOM: drawn by a program, no patient",
    )


def _write_tables(table: pd.DataFrame, root: pathlib.Path) -> None:
    """The two CSVs with one row per box, and the mapping to patients, as RSNA publishes them."""
    rng = np.random.default_rng([2, len(table)])
    rows = table.to_dict("records")
    boxes, classes = [], []
    for row in rows:
        n_boxes = int(rng.integers(1, 3)) if row["finding"] == "opacity" else 1
        for _ in range(n_boxes):
            box = (np.nan,) * 4
            if row["finding"] == "opacity":
                box = tuple(np.round(rng.uniform([100, 250, 150, 150], [550, 500, 300, 400]), 1))
            boxes.append((row["image_id"], *box, int(row["finding"] == "opacity")))
            classes.append((row["image_id"], CLASSES[row["finding"]]))
    columns = ["patientId", "x", "y", "width", "height", "Target"]
    write_table(root / layout.LABELS, pd.DataFrame(boxes, columns=columns))
    names = ["patientId", "class"]
    write_table(root / layout.CLASSES, pd.DataFrame(classes, columns=names))
    mapping = [
        {"img_id": f"{row['patient']:08d}_{row['film']:03d}.png", "subset_img_id": row["image_id"]}
        for row in rows
    ]
    write_json(root / layout.MAPPING, mapping)
