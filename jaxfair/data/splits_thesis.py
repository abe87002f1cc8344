"""The split of the thesis: the training set composed by group share."""

import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.schema import THESIS_AGE_EDGES

__all__ = ["split_like_thesis", "thesis_groups"]


def thesis_groups(manifest: pd.DataFrame, attribute: str) -> np.ndarray:
    """The thesis's groups A and B: (n,) "A" (male, or 61 and older), "B" (female, or 31 and
    younger) or "" (neither, or unknown)."""
    if attribute == "sex":
        return manifest["sex"].map({"M": "A", "F": "B"}).fillna("").to_numpy(object)
    age = np.floor(manifest["age"].to_numpy(float))
    _, middle, old, _ = THESIS_AGE_EDGES
    return np.where(age >= old, "A", np.where(age < middle, "B", "")).astype(object)


def split_like_thesis(
    manifest: pd.DataFrame,
    *,
    attribute: str,
    share: float,
    share_normals: bool = False,
    per_group: int = 50,
    seed: int = 42,
) -> tuple[np.ndarray, np.ndarray]:
    """Group share in training at constant size, equal groups in validation and test.

    Per group, `per_group` normal and as many anomalous images validate and as many others
    test; n is the smaller of the two groups' remaining normals, and training takes the first
    int(n share) of group A and int(n (1 - share)) of group B in one fixed order, so smaller
    shares are subsets of larger ones. Images of one patient go to one split, and no patient
    with an abnormal image trains (P5); where every image is its own patient this is the
    thesis's rule. It counts patients, so a run that uses it is `selection: coupled` (P4).

    Args:
      manifest: with patient_id, label_anomaly, patient_abnormal, sex and age.
      attribute: "sex" or "age".
      share: fraction of group A in training, the thesis's `protected_attr_percent`.
      share_normals: the thesis's defect: validation and test use the same normal images.
      per_group: images per group, label and split.
      seed: of the order.

    Returns:
      (n,) split, and (n,) bool, True for the validation images that also count as test (only
      with `share_normals`).

    Raises:
      InputError: a group has too few images of a label.
    """
    group = thesis_groups(manifest, attribute)
    order = np.random.default_rng(seed).permutation(len(manifest))
    patient = manifest["patient_id"].to_numpy(object)
    label = manifest["label_anomaly"].to_numpy(float)
    split = np.full(len(manifest), "", object)
    place: dict[str, str] = {}
    parts = ("validation",) if share_normals else ("validation", "test")
    for name in ("A", "B"):
        for value, wanted in ((1.0, ("validation", "test")), (0.0, parts)):
            rows = order[(group[order] == name) & (label[order] == value)]
            for part in wanted:
                taken = _take(rows, patient, place, part, per_group)
                if len(taken) < per_group:
                    raise InputError(
                        f"The thesis's split needs {per_group} images of label {value:.0f} for "
                        f"{part} in group {name} of {attribute}, and {len(taken)} are left; lower "
                        "data.per_group or use data.split='patient'."
                    )
                split[taken] = part
    free = ~manifest["patient_abnormal"].to_numpy(bool) & ~np.isin(patient, list(place))
    free &= label == 0
    rest = {name: order[(group[order] == name) & free[order]] for name in ("A", "B")}
    n = min(len(rest["A"]), len(rest["B"]))
    split[rest["A"][: int(n * share)]] = "train"
    split[rest["B"][: int(n * (1 - share))]] = "train"
    return split, (split == "validation") & (label == 0) & share_normals


def _take(
    rows: np.ndarray, patient: np.ndarray, place: dict[str, str], part: str, wanted: int
) -> np.ndarray:
    """The first `wanted` of `rows` whose patients are free or already in `part`; marks them."""
    taken: list[int] = []
    for row in rows:
        if len(taken) == wanted:
            break
        if place.setdefault(patient[row], part) == part:
            taken.append(int(row))
    return np.asarray(taken, int)
