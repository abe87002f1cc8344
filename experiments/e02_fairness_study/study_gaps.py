"""Scenarios of max-min gaps and of groups against the rest, and what other tools do."""

import functools

import numpy as np
import pandas as pd
from study_design import LEVEL, PLANTED, SIGNAL, Scenario, clustered, number, rng, sample

from jaxfair.fairness.contrasts import group_contrasts
from jaxfair.fairness.gaps import max_min_gap
from jaxfair.fairness.metrics import auroc

DESIGNS = {
    "two_groups": {"counts": [(50, 100)] * 2},
    "three_groups": {"counts": [(100, 100)] * 3},
    "six_groups": {"counts": [(500, 500)] * 6},
    "unequal_prevalence": {"counts": [(20, 480), (250, 250)]},
    "unequal_variance": {"counts": [(100, 100)] * 2, "spread": (1.0, 3.0)},
    "shifted_scores": {"counts": [(100, 100)] * 2, "shift": (0.0, 2.0)},
}
TITLES = {
    "two_groups": "2 groups of 50 + 100 (positives + negatives)",
    "three_groups": "3 groups of 100 + 100",
    "six_groups": "6 groups of 500 + 500",
    "unequal_prevalence": "unequal prevalence: 20 + 480 against 250 + 250",
    "unequal_variance": "unequal variance: standard deviation 1 against 3, 100 + 100",
    "shifted_scores": "scores shifted by 2 in one group, 100 + 100",
}
FLAGGED = {"any other flagged": (0.0, 0.05)}


def gap_rejects(name: str, repeat: int, design: dict, n: int | None = None) -> dict[str, bool]:
    """One repeat: is the max-min gap called significant at 5 %?"""
    y, s, groups = sample(rng(name, repeat), **design)
    # 99 and 199 permutations give exact 5 % levels.
    n = n or (99 if len(y) > 1000 else 199)
    found = max_min_gap(y, s, groups, seed=[number(name), repeat], n_replicates=n)
    return {"significant": found.p_value <= 0.05}


def clustered_gap_rejects(name: str, repeat: int, n: int | None = None) -> dict[str, bool]:
    """One repeat with 5 images per patient, 100 patients in each of two groups."""
    y, s, patients = clustered(rng(name, repeat), 200, 5)
    found = max_min_gap(
        y, s, patients % 2, patients, seed=[number(name), repeat], n_replicates=n or 199
    )
    return {"significant": found.p_value <= 0.05}


def flags(name: str, repeat: int, planted: bool) -> dict[str, bool]:
    """One repeat of the whole family of contrasts: sex, age, sex x age over 800 patients.

    Two thirds of the women's images are AP, one third of the men's, and AP is harder for all.
    """
    draw, n = rng(name, repeat), 800
    sex = draw.choice(["F", "M"], n)
    ap = draw.random(n) < np.where(sex == "F", 2 / 3, 1 / 3)
    y = (draw.random(n) < np.where(ap, 0.5, 0.3)).astype(float)
    weak = (sex == "F") & planted
    signal = SIGNAL - 0.6 * weak - 0.5 * ap + 0.5
    table = pd.DataFrame(
        {
            "y_true": y,
            "y_score": draw.normal(size=n) + y * signal,
            "sex": sex,
            "age": draw.choice(["young", "old"], n),
            "view": np.where(ap, "AP", "PA"),
        }
    )
    found = group_contrasts(table, ["sex", "age"], seed=[number(name), repeat], n_draws=199)
    called = set(found.loc[found["flagged"], "group"])
    return {"F flagged": "F" in called, "any other flagged": bool(called - {"F"})}


def todays_tools(name: str, repeat: int, design: dict) -> dict[str, bool]:
    """One repeat of what others do: percentile bootstrap of max-min, plain permutation."""
    draw = rng(name, repeat)
    y, s, groups = sample(draw, **design)

    def gap(y, s, groups):
        return np.ptp([auroc(y[groups == g], s[groups == g]) for g in range(groups.max() + 1)])

    draws = [draw.integers(0, len(y), len(y)) for _ in range(199)]
    low = np.quantile([gap(y[d], s[d], groups[d]) for d in draws], 0.025)
    null = [gap(y, s, draw.permutation(groups)) for _ in range(199)]
    p = (1 + np.sum(np.array(null) >= gap(y, s, groups))) / 200
    return {"percentile interval excludes 0.005": low > 0.005, "plain permutation": p <= 0.05}


def _scenarios() -> dict[str, Scenario]:
    found = {
        name: Scenario(functools.partial(gap_rejects, design=design), "level", TITLES[name], LEVEL)
        for name, design in DESIGNS.items()
    }
    five = "5 images per patient, 100 patients in each of 2 groups"
    found["five_images_per_patient"] = Scenario(clustered_gap_rejects, "level", five, LEVEL)
    planted = {"counts": [(500, 500)] * 2, "signal": (SIGNAL, PLANTED)}
    found["planted_gap"] = Scenario(
        functools.partial(gap_rejects, design=planted),
        "power",
        "planted AUROC gap of .10, 2 groups of 500 + 500",
        {"significant": (0.9, 1.0)},
    )
    found["no_group_worse"] = Scenario(
        functools.partial(flags, planted=False),
        "flags",
        "800 patients, women mostly AP, AP harder, sexes alike",
        {"F flagged": (0.0, 0.05), **FLAGGED},
    )
    found["women_worse"] = Scenario(
        functools.partial(flags, planted=True),
        "flags",
        "the same with women truly worse (AUROC about .13 lower)",
        FLAGGED,
    )
    for name in ("two_groups", "three_groups", "unequal_prevalence"):
        one = functools.partial(todays_tools, design=DESIGNS[name])
        found[f"today_{name}"] = Scenario(one, "others", TITLES[name], {}, 0.1)
    return found


SCENARIOS = _scenarios()
