"""Scenarios of 95 % intervals: do they hold the truth?"""

import functools

from study_design import COVERAGE, TRUTH, Scenario, clustered, rng

from jaxfair.fairness import delong


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

SCENARIOS = {**EQUAL}
