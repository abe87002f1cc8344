"""Do the tests and intervals of jaxfair.fairness hold what they promise? Measured by simulation.

    python experiments/e02_fairness_study/study.py                # 2,000 repeats, all scenarios
    python experiments/e02_fairness_study/study.py --repeats 400 --only two_groups

Every repeat r of scenario k draws from default_rng([2026, k, r]), fixed before any run.
"""

import argparse
import pathlib
import time
import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import norm

from jaxfair.fairness import delong
from jaxfair.fairness.contrasts import group_contrasts
from jaxfair.fairness.gaps import max_min_gap
from jaxfair.fairness.metrics import auroc
from jaxfair.files import write_json, write_table

SIGNAL = 1.0
"""Distance of the classes in standard deviations; the true AUROC is then .760."""

TRUTH = float(norm.cdf(SIGNAL / np.sqrt(2)))
PLANTED = float(np.sqrt(2) * norm.ppf(TRUTH - 0.10))
"""The distance that lowers a group's AUROC by exactly .10."""


def sample(rng, counts, spread=None, shift=None, signal=None):
    """Returns labels, scores and groups for counts [(positives, negatives), ...] by group."""
    parts = []
    for g, (m, n) in enumerate(counts):
        sd = 1.0 if spread is None else spread[g]
        y = np.r_[np.ones(m), np.zeros(n)]
        score = sd * (rng.normal(size=m + n) + y * (SIGNAL if signal is None else signal[g]))
        parts.append((y, score + (0.0 if shift is None else shift[g]), np.full(m + n, g)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def clustered(rng, n_patients, images, share=0.5):
    """Returns labels, scores and patients; half of the score's variance is the patient's own.

    One image per patient: half of the patients are positive. More: each image is, at random.
    """
    patients = np.repeat(np.arange(n_patients), images)
    n = len(patients)
    y = (np.arange(n) % 2 if images == 1 else rng.random(n) < 0.5).astype(float)
    own = rng.normal(size=n_patients) * np.sqrt(share)
    return y, own[patients] + rng.normal(size=n) * np.sqrt(1 - share) + SIGNAL * y, patients


LEVELS = {
    "two_groups": {"counts": [(50, 100)] * 2},
    "three_groups": {"counts": [(100, 100)] * 3},
    "six_groups": {"counts": [(500, 500)] * 6},
    "unequal_prevalence": {"counts": [(20, 480), (250, 250)]},
    "unequal_variance": {"counts": [(100, 100)] * 2, "spread": (1.0, 3.0)},
    "shifted_scores": {"counts": [(100, 100)] * 2, "shift": (0.0, 2.0)},
}
POWER = {"planted_gap": {"counts": [(500, 500)] * 2, "signal": (SIGNAL, PLANTED)}}
COVERAGE = {f"{k}_images_{p}_patients": (k, p) for k in (1, 20) for p in (50, 150)}


def gap_rejects(name: str, repeat: int, design: dict, n: int | None) -> dict[str, bool]:
    """One repeat: is the max-min gap called significant at 5 %?"""
    y, s, groups = sample(_rng(name, repeat), **design)
    # 99 and 199 permutations give exact 5 % levels.
    n = n or (99 if len(y) > 1000 else 199)
    found = max_min_gap(y, s, groups, seed=[_number(name), repeat], n_replicates=n)
    return {"significant": found.p_value <= 0.05}


def clustered_gap_rejects(name: str, repeat: int) -> dict[str, bool]:
    """One repeat with 5 images per patient, 100 patients in each of two groups."""
    y, s, patients = clustered(_rng(name, repeat), 200, 5)
    found = max_min_gap(
        y, s, patients % 2, patients, seed=[_number(name), repeat], n_replicates=199
    )
    return {"significant": found.p_value <= 0.05}


def covers(name: str, repeat: int, images: int, n_patients: int) -> dict[str, bool]:
    """One repeat: do the intervals hold the truth? The contrast is of two such groups."""
    rng, found = _rng(name, repeat), []
    for g in (0, 1):
        y, s, patients = clustered(rng, n_patients, images)
        shifted = patients + g * n_patients
        found.append(delong.auroc_estimate(y, s, shifted, n_patients=2 * n_patients))
    ends = {
        "auroc_logit": (delong.logit_interval(found[0]), TRUTH),
        "auroc_arcsine": (delong.arcsine_interval(found[0]), TRUTH),
        "contrast": (delong.t_interval(delong.difference(*found)), 0.0),
    }
    return {key: low <= truth <= high for key, ((low, high), truth) in ends.items()}


def flags(name: str, repeat: int, planted: bool) -> dict[str, bool]:
    """One repeat of the whole family of contrasts: sex, age, sex x age over 800 patients.

    Two thirds of the women's images are AP, one third of the men's, and AP is harder for all.
    """
    rng, n = _rng(name, repeat), 800
    sex = rng.choice(["F", "M"], n)
    ap = rng.random(n) < np.where(sex == "F", 2 / 3, 1 / 3)
    y = (rng.random(n) < np.where(ap, 0.5, 0.3)).astype(float)
    weak = (sex == "F") & planted
    signal = SIGNAL - 0.6 * weak - 0.5 * ap + 0.5
    table = pd.DataFrame(
        {
            "y_true": y,
            "y_score": rng.normal(size=n) + y * signal,
            "sex": sex,
            "age": rng.choice(["young", "old"], n),
            "view": np.where(ap, "AP", "PA"),
        }
    )
    found = group_contrasts(table, ["sex", "age"], seed=[_number(name), repeat], n_bootstrap=499)
    called = set(found.loc[found["flagged"], "group"])
    return {"F flagged": "F" in called, "any other flagged": bool(called - {"F"})}


def todays_tools(name: str, repeat: int, design: dict) -> dict[str, bool]:
    """One repeat of what others do: percentile bootstrap of max-min, plain permutation."""
    rng = _rng(name, repeat)
    y, s, groups = sample(rng, **design)

    def gap(y, s, groups):
        return np.ptp([auroc(y[groups == g], s[groups == g]) for g in range(groups.max() + 1)])

    draws = [rng.integers(0, len(y), len(y)) for _ in range(199)]
    low = np.quantile([gap(y[d], s[d], groups[d]) for d in draws], 0.025)
    null = [gap(y, s, rng.permutation(groups)) for _ in range(199)]
    p = (1 + np.sum(np.array(null) >= gap(y, s, groups))) / 200
    return {"percentile interval excludes 0.005": low > 0.005, "plain permutation": p <= 0.05}


def run(repeats: int, only: list[str] | None = None, n: int | None = None) -> pd.DataFrame:
    """Returns the share of repeats of each outcome, with its standard error.

    `only` names scenarios, `n` replaces the number of permutations in each repeat.
    """
    jobs: dict[str, tuple[Callable[[str, int], dict[str, bool]], int, str]] = {}
    for name, design in LEVELS.items():
        jobs[name] = (lambda k, r, d=design: gap_rejects(k, r, d, n), repeats, ".04 to .06")
    jobs["five_images_per_patient"] = (clustered_gap_rejects, repeats, ".04 to .06")
    for name, design in POWER.items():
        jobs[name] = (lambda k, r, d=design: gap_rejects(k, r, d, n), repeats, ">= .9")
    for name, (k, p) in COVERAGE.items():
        jobs[name] = (lambda i, r, k=k, p=p: covers(i, r, k, p), repeats, ".94 to .96")
    jobs["no_group_worse"] = (lambda k, r: flags(k, r, False), repeats, "<= .05")
    jobs["women_worse"] = (lambda k, r: flags(k, r, True), repeats, "F high, other <= .05")
    for name in ("two_groups", "three_groups", "unequal_prevalence"):
        design, few = LEVELS[name], max(repeats // 10, 1)
        jobs[f"today_{name}"] = (lambda k, r, d=design: todays_tools(k, r, d), few, "")
    return pd.concat([_rows(name, *jobs[name]) for name in jobs if not only or name in only])


def _rows(name: str, one: Callable, repeats: int, goal: str) -> pd.DataFrame:
    start = time.perf_counter()
    shares = pd.DataFrame([one(name, r) for r in range(repeats)]).mean()
    seconds = round(time.perf_counter() - start, 1)
    print(f"{name}: {shares.round(4).to_dict()} in {seconds} s", flush=True)
    error = np.sqrt(shares * (1 - shares) / repeats)
    return pd.DataFrame(
        {
            "scenario": name,
            "outcome": shares.index,
            "share": shares.to_numpy(),
            "standard_error": error.to_numpy(),
            "repeats": repeats,
            "goal": goal,
            "seconds": seconds,
        }
    )


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _rng(name: str, repeat: int) -> np.random.Generator:
    return np.random.default_rng([2026, _number(name), repeat])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", nargs="*", help="names of scenarios")
    here = pathlib.Path(__file__).parent / "results"
    parser.add_argument("--out", type=pathlib.Path, default=here)
    chosen = parser.parse_args()
    table = run(chosen.repeats, chosen.only)
    write_table(chosen.out / "study.csv", table)
    write_json(chosen.out / "study.json", table.to_dict(orient="records"))


if __name__ == "__main__":
    main()
