"""Scenarios of groups against the rest: levels to the edge of the scale, rates, many labels, views.

119 draws a repeat instead of the 999 of a report: levels of 5 % and tails of 2.5 % are exact at
either, and an error of a share does not depend on them.
"""

import functools

import numpy as np
import pandas as pd
from scipy.stats import norm
from study_design import LEVEL, Scenario, number, rng, sample

from jaxfair.fairness.contrasts import group_contrasts

DRAWS = 119
AT_MOST = (0.0, 0.06)
POWER = (0.8, 1.0)

AREAS = (0.6, 0.76, 0.9, 0.95, 0.99)
CELLS = ((10, 50), (25, 100), (50, 200), (250, 1000))
MANY = (400, 1600)
"""The 2,000 images that the small group is compared with."""


def distance(area: float) -> float:
    """The distance of two normal classes with this AUROC, in standard deviations."""
    return float(np.sqrt(2) * norm.ppf(area))


def edge(
    name: str,
    repeat: int,
    area: float,
    cell: tuple[int, int],
    shift: float = 0.0,
    spread: float = 1.0,
    images: int = 1,
    n: int = DRAWS,
) -> dict[str, bool]:
    """One repeat: a small group and 2,000 others, equal AUROC; is either called worse?

    The small group's scores may be shifted and spread, and patients have several images.
    """
    draw = rng(name, repeat)
    many = (MANY[0] // images, MANY[1] // images)
    y, s, group = sample(draw, [cell, many], signal=[distance(area)] * 2)
    patients = np.arange(len(y))
    if images > 1:
        y, s, group, patients = (np.repeat(v, images) for v in (y, s, group, patients))
        own = draw.normal(size=len(y))
        # The patient's part keeps half of the variance, and the classes their distance.
        signal = distance(area) * y
        s = signal + ((s - signal) + own) / np.sqrt(2)
    s = np.where(group == 0, spread * s + shift, s)
    table = _table((y, s, group)).assign(patient_id=patients)
    found = group_contrasts(table, ["group"], seed=_seed(name, repeat), n_draws=n)
    called = set(found.loc[found["flagged"], "group"])
    return {
        "either called worse": bool(called),
        "the small group": "0" in called,
        "the 2,000": "1" in called,
    }


def rates(
    name: str, repeat: int, shift: tuple[float, float], images: int = 1, n: int = DRAWS
) -> dict[str, bool]:
    """One repeat: 60 + 240 and 200 + 600 patients, the first group's classes shifted.

    The threshold is fixed where .85 of the ill are found without a shift. Without one all four
    statistics are alike in both groups, calibration among them: the risk is the true one.
    """
    draw = rng(name, repeat)
    signal = 2.0
    y, s, group = sample(draw, [(60, 240), (200, 600)], signal=[signal] * 2)
    s = s + (group == 0) * np.where(y == 1, *shift)
    patients = np.arange(len(y))
    if images > 1:
        own = draw.normal(size=len(y))
        y, s, group, patients = (np.repeat(v, images) for v in (y, s, group, patients))
        s = s + (np.repeat(own, images) + draw.normal(size=len(y))) / 2
    table = _table((y, s, group)).assign(patient_id=patients)
    found = group_contrasts(
        table,
        ["group"],
        seed=_seed(name, repeat),
        n_draws=n,
        thresholds={"score": signal + norm.ppf(0.15)},
    )
    called = {f"{s} {g}" for s, g in found.loc[found["flagged"], ["statistic", "group"]].to_numpy()}
    return {
        "group 1 missed more often": "sensitivity 0" in called,
        "anything called worse": bool(called),
    }


def calibrated(name: str, repeat: int, too_low: float, n: int = DRAWS) -> dict[str, bool]:
    """One repeat: 300 and 1,000 patients with true risks; the first group's are stated too low."""
    draw = rng(name, repeat)
    group = np.repeat([0, 1], [300, 1000])
    risk = draw.beta(1, 4, len(group))
    y = (draw.random(len(group)) < risk).astype(float)
    stated = np.clip(risk - too_low * (group == 0), 0, 1)
    table = _table((y, stated, group))
    found = group_contrasts(
        table,
        ["group"],
        seed=_seed(name, repeat),
        n_draws=n,
        probabilities={"score": stated},
    )
    rows = found[found["statistic"] == "calibration"]
    called = set(rows.loc[rows["flagged"], "group"])
    return {"group 1's risk is called off": "0" in called, "either's risk": bool(called)}


def labels(name: str, repeat: int, n_labels: int = 14, n: int = DRAWS) -> dict[str, bool]:
    """One repeat of a report with 14 labels of 400 patients, sex, rates and risks, no true gap."""
    draw, parts = rng(name, repeat), []
    sex = draw.choice(["F", "M"], 400)
    own = draw.normal(size=400)
    for label in range(n_labels):
        y = (draw.random(400) < 0.25).astype(float)
        s = (own + draw.normal(size=400)) / np.sqrt(2) + 1.5 * y
        parts.append(_table((y, s, sex)).assign(task=f"label {label}"))
    table = pd.concat(parts, ignore_index=True)
    names = [f"label {label}" for label in range(n_labels)]
    found = group_contrasts(
        table, ["group"], seed=_seed(name, repeat), n_draws=n, thresholds=dict.fromkeys(names, 0.75)
    )
    return {
        "anything called worse": bool(found["flagged"].any()),
        "uncorrected, AUROC alone": bool(
            (found.loc[found["statistic"] == "auroc", "p"] <= 0.05).any()
        ),
    }


def views(name: str, repeat: int, n: int = DRAWS) -> dict[str, bool]:
    """One repeat: 800 patients, .9 of women AP, .1 of men, AP harder, both sexes alike."""
    draw = rng(name, repeat)
    sex = draw.choice(["F", "M"], 800)
    ap = draw.random(800) < np.where(sex == "F", 0.9, 0.1)
    y = (draw.random(800) < np.where(ap, 0.5, 0.3)).astype(float)
    s = draw.normal(size=800) + y * np.where(ap, 1.0, 2.5)
    table = _table((y, s, sex)).assign(view=np.where(ap, "AP", "PA"))
    seed, at = _seed(name, repeat), {"score": 1.0}
    same = group_contrasts(table, ["group"], seed=seed, n_draws=n, thresholds=at)
    raw = group_contrasts(table, ["group"], seed=seed, n_draws=n, thresholds=at, control=None)
    return {
        "anything called worse": bool(same["flagged"].any()),
        "not standardised": bool(raw["flagged"].any()),
    }


def _table(parts: tuple[np.ndarray, ...]) -> pd.DataFrame:
    y, score, group = parts
    names = group if group.dtype.kind == "U" else group.astype(int).astype(str)
    ids = np.arange(len(y))
    return pd.DataFrame(
        {"image_id": ids, "patient_id": ids, "y_true": y, "y_score": score, "group": names}
    )


def _seed(name: str, repeat: int) -> int:
    return number(name) + repeat


EDGES = {
    f"edge_{round(100 * area)}_{m}_{n}": Scenario(
        functools.partial(edge, area=area, cell=(m, n)),
        "edge",
        f"AUROC .{round(100 * area)}, {m} + {n} images",
        {"either called worse": LEVEL[""]},
    )
    for area in AREAS
    for m, n in CELLS
}

_BEYOND = {
    "edge_shift": ("AUROC .90, 25 + 100, scores shifted by 2", 0.9, (25, 100), {"shift": 2.0}),
    "edge_spread": (
        "AUROC .90, 25 + 100, scores spread threefold",
        0.9,
        (25, 100),
        {"spread": 3.0},
    ),
    "edge_rare": ("AUROC .95, 10 + 500", 0.95, (10, 500), {}),
    "edge_images": ("AUROC .95, 25 + 100 patients of 5 images", 0.95, (25, 100), {"images": 5}),
}
"""Designs in which the groups differ in what is no gap, or images are not alone."""
BEYOND = {
    name: Scenario(
        functools.partial(edge, area=area, cell=cell, **more),
        "edge",
        title,
        {"either called worse": LEVEL[""]},
        0.5,
    )
    for name, (title, area, cell, more) in _BEYOND.items()
}

SCENARIOS = {
    **EDGES,
    **BEYOND,
    "rates_alike": Scenario(
        functools.partial(rates, shift=(0.0, 0.0)),
        "rates",
        "60 + 240 against 200 + 600 images, alike",
        {"anything called worse": LEVEL[""]},
    ),
    "rates_alike_5_images": Scenario(
        functools.partial(rates, shift=(0.0, 0.0), images=5),
        "rates",
        "the same with 5 images per patient",
        {"anything called worse": LEVEL[""]},
    ),
    "rates_missed": Scenario(
        functools.partial(rates, shift=(-0.7, 0.0)),
        "rates",
        "the ill of group 1 score .7 lower: sensitivity .63 against .85",
        {"group 1 missed more often": POWER},
        0.25,
    ),
    "rates_shifted": Scenario(
        functools.partial(rates, shift=(-0.7, -0.7)),
        "rates",
        "all of group 1 score .7 lower: AUROC alike, sensitivity .63 against .85",
        {"group 1 missed more often": POWER},
        0.25,
    ),
    "risks_alike": Scenario(
        functools.partial(calibrated, too_low=0.0),
        "risks",
        "true risks of 300 and 1,000 patients",
        {"either's risk": AT_MOST},
    ),
    "risks_too_low": Scenario(
        functools.partial(calibrated, too_low=0.1),
        "risks",
        "group 1's risks stated .1 too low",
        {"group 1's risk is called off": POWER},
        0.25,
    ),
    "fourteen_labels": Scenario(
        labels, "labels", "14 labels x 3 statistics, alike", {"anything called worse": LEVEL[""]}
    ),
    "unequal_views": Scenario(
        views,
        "views",
        "800 patients, women mostly AP, AP harder, sexes alike",
        {"anything called worse": LEVEL[""]},
    ),
}
