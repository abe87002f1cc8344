"""Scenarios of 95 % intervals: do they hold the truth?"""

import functools

import numpy as np
import pandas as pd
from scipy.stats import norm
from study_design import AT_LEAST, COVERAGE, TRUTH, Scenario, clustered, rng

from jaxfair.fairness import delong
from jaxfair.fairness.rates import rate_estimate
from jaxfair.fairness.table import fairness_table
from jaxfair.fairness.thresholds import fit_thresholds


def covers(name: str, repeat: int, images: int, n_patients: int) -> dict[str, bool]:
    """One repeat: do the intervals hold the truth? The contrast is of two such groups."""
    draw, found = rng(name, repeat), []
    for g in (0, 1):
        y, s, patients = clustered(draw, n_patients, images)
        shifted = patients + g * n_patients
        found.append(delong.auroc_estimate(y, s, shifted, n_patients=2 * n_patients))
    ends = {
        "auroc_logit": (delong.logit_interval(found[0]), TRUTH),
        "auroc_arcsine": (delong.arcsine_interval(found[0]), TRUTH),
        "contrast": (delong.t_interval(delong.difference(*found)), 0.0),
    }
    return {key: low <= truth <= high for key, ((low, high), truth) in ends.items()}


EQUAL = {
    f"{images}_images_{patients}_patients": Scenario(
        functools.partial(covers, images=images, n_patients=patients),
        "coverage",
        f"{patients} patients, {images} image{'s' if images > 1 else ''} each",
        COVERAGE,
    )
    for images in (1, 20)
    for patients in (50, 150)
}


def pareto(draw):
    """60 patients with Pareto(1) many images, 1,000 at most."""
    return np.minimum(1 + np.floor(draw.pareto(1.0, 60)), 1000).astype(int)


def giants(draw):
    """10 patients with 100 images each, and 180 with one."""
    return np.r_[np.full(10, 100), np.ones(180, dtype=int)]


def drawn(draw, sizes, area=TRUTH, prevalence=0.5, whole=False):
    """Returns labels, scores and patients; half of a score's variance is the patient's own.

    `whole`: the label is the patient's, and exactly this share of patients is positive.
    """
    patients = np.repeat(np.arange(len(sizes)), sizes)
    if whole:
        y = (draw.permutation(len(sizes)) < round(prevalence * len(sizes)))[patients] * 1.0
    else:
        y = (draw.random(len(patients)) < prevalence) * 1.0
    own, rest = draw.normal(size=len(sizes)) * np.sqrt(0.5), draw.normal(size=len(patients))
    s = own[patients] + rest * np.sqrt(0.5) + np.sqrt(2) * norm.ppf(area) * y
    return y, s, patients


def holds(name: str, repeat: int, sizes, area=TRUTH, contrast=True, **design) -> dict:
    """One repeat: do the intervals of the AUROC, and of the difference of two such groups, hold?"""
    draw, found = rng(name, repeat), []
    for _ in range(1 + contrast):
        y, s, patients = drawn(draw, sizes(draw), area, **design)
        found.append((y, s, patients, delong.auroc_estimate(y, s, patients)))
    low, high = delong.logit_interval(found[0][-1])
    outcomes = {"AUROC": low <= area <= high}
    if contrast:
        n = [int(patients.max()) + 1 for _, _, patients, _ in found]
        pair = [
            delong.auroc_estimate(y, s, patients + shift, n_patients=sum(n))
            for (y, s, patients, _), shift in zip(found, (0, n[0]), strict=True)
        ]
        low, high = delong.difference_interval(*pair)
        outcomes["difference"] = low <= 0 <= high
    return outcomes


def rate_holds(name: str, repeat: int, sizes, rate, share=0.5) -> dict:
    """One repeat: does the exact interval hold the rate? `share` makes a patient's images alike."""
    draw = rng(name, repeat)
    counts = sizes(draw)
    patients = np.repeat(np.arange(len(counts)), counts)
    own, rest = draw.normal(size=len(counts)) * np.sqrt(share), draw.normal(size=len(patients))
    hits = own[patients] + rest * np.sqrt(1 - share) < norm.ppf(rate)
    found = rate_estimate(hits, np.ones(len(hits)), patients)
    width = found.high - found.low
    return {"rate": found.low <= rate <= found.high, "without width": not width > 1e-9}


def at_threshold(name: str, repeat: int) -> dict:
    """One repeat: sensitivity at a false-positive rate of 5 %, asked of 150 validation images."""
    draw = rng(name, repeat)
    y = draw.random(450) < 0.5
    rows = pd.DataFrame({"y_true": y * 1.0, "y_score": draw.normal(size=450) + 1.5 * y})
    rows = rows.assign(task="score", split=["validation"] * 150 + ["test"] * 300)
    fitted = fit_thresholds(rows)
    truths = norm.ppf(0.95), fitted["score"]["fpr@0.05"]
    outcomes = {}
    for key, part, at in zip(("nominal", "realised"), (rows, rows[150:]), truths, strict=True):
        table = fairness_table(part, thresholds=fitted, attributes=(), n_bootstrap=100)
        row = table.set_index("metric").loc["tpr_at_fpr_0.05"]
        outcomes[key] = row["ci_low"] <= norm.sf(at - 1.5) <= row["ci_high"]
    return outcomes


def _each(patients, images=1):
    return lambda draw: np.full(patients, images)


def _named(table, function, designs):
    return {
        name: Scenario(functools.partial(function, **design), table, title, AT_LEAST)
        for name, (title, design) in designs.items()
    }


UNEQUAL = _named(
    "unequal",
    holds,
    {
        "pareto": ("60 patients, Pareto many images", {"sizes": pareto}),
        "pareto_whole": ("the same, one label per patient", {"sizes": pareto, "whole": True}),
        "giants": ("10 patients with 100 images, 180 with one", {"sizes": giants}),
        "giants_whole": ("the same, one label per patient", {"sizes": giants, "whole": True}),
        "few_patients": ("20 patients, 50 images each", {"sizes": _each(20, 50)}),
        "rare_single": ("prevalence 1 %, 2,000 patients", {"sizes": _each(2000), "whole": True,
                                                           "prevalence": 0.01}),
        "rare_many": ("prevalence 1 %, 300 patients, 5 images each",
                      {"sizes": _each(300, 5), "prevalence": 0.01}),
    },
)  # fmt: skip
EDGE = _named(
    "edge_intervals",
    holds,
    {
        f"area_{str(area)[2:]}_{n}": (
            f"AUROC {area}, {n} patients", {"sizes": _each(n), "area": area, "whole": True})
        for area, n in ((0.95, 150), (0.99, 60), (0.99, 150), (0.99, 600), (0.999, 150))
    } | {"tiny": ("AUROC .760, 10 + 10 patients", {"sizes": _each(20), "whole": True})},
)  # fmt: skip
RATES = _named(
    "rate_intervals",
    rate_holds,
    {
        "ten_90": ("10 patients, rate .9", {"sizes": _each(10), "rate": 0.9}),
        "ten_99": ("10 patients, rate .99", {"sizes": _each(10), "rate": 0.99}),
        "hundred_80": ("100 patients, rate .8", {"sizes": _each(100), "rate": 0.8}),
        "many_80": ("50 patients, 20 images each, rate .8", {"sizes": _each(50, 20), "rate": 0.8}),
        "many_98": ("the same, rate .98", {"sizes": _each(50, 20), "rate": 0.98}),
        "pareto_80": ("60 patients, Pareto many images, rate .8", {"sizes": pareto, "rate": 0.8}),
        "giants_95": ("10 patients with 100 images, 180 with one, rate .95",
                      {"sizes": giants, "rate": 0.95}),
        "rare_rate": ("2,000 patients, rate .01", {"sizes": _each(2000), "rate": 0.01}),
    },
)  # fmt: skip
THRESHOLD = {
    "threshold": Scenario(
        at_threshold, "threshold", "150 validation images, 300 test images", AT_LEAST, 0.25
    )
}

SCENARIOS = {**EQUAL, **UNEQUAL, **EDGE, **RATES, **THRESHOLD}
