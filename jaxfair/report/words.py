"""The fixed words of a report: where the checklists are answered, and the limits."""

import pandas as pd

from jaxfair.fairness.catalog import METRICS

__all__ = ["LIMITS", "crosswalk"]

LIMITS = (
    "These are results on the test patients of one data set. Another hospital has other"
    " patients, machines and labels, and may see other gaps.",
    "No difference found is not the same as no difference: small groups hide large ones. Read"
    " the intervals, not only the flags.",
    "Labels are taken as true. If they are wrong more often in one group, that group's results"
    " are wrong too.",
    "Sex and age groups are what the files say. 'unknown' is a group of its own; it is neither"
    " guessed nor dropped.",
    "Groups are compared with the rest at the same mix of views (risks as they are). Other causes"
    " that differ between groups (scanner, severity, referral) are not taken out.",
    "Intervals cover the chance of drawing these test patients. They do not cover another"
    " training seed or another split, unless a table says so.",
    "Tables, thresholds and plots are computed from validation and test patients without noise:"
    " they are not protected by differential privacy.",
    "This report supports a decision by people who know the clinic. It is no approval for use.",
)

_ITEMS = (
    ("TRIPOD+AI 3c", "known inequalities between groups", "to be written by the authors"),
    ("TRIPOD+AI 12e", "measures of performance", "All metrics: {metrics}"),
    ("TRIPOD+AI 14", "approach to fairness", "Results by group; Gaps"),
    ("TRIPOD+AI 20b", "participants by group", "Population and flow"),
    ("TRIPOD+AI 23a", "performance with intervals, key subgroups", "Results by group"),
    ("TRIPOD+AI 23b", "heterogeneity", "Gaps; Within each view; Intersections"),
    ("TRIPOD+AI 26", "limitations", "Limits"),
    ("CLAIM 33", "flow of participants", "Population and flow"),
    ("CLAIM 34", "demographics by partition", "Population and flow"),
    ("CLAIM 2024", "failure analysis", "Worst cases"),
    ("FUTURE-AI Fairness 1", "sources of bias", "Within each view; Limits"),
    ("FUTURE-AI Fairness 2", "attributes collected, missing ones handled", "Population and flow"),
    ("FUTURE-AI Fairness 3", "fairness evaluated and corrected", "Results by group; Comparison"),
    ("FUTURE-AI General 2", "privacy measures", "Privacy statement"),
    (
        "NIST SP 800-226",
        "unit, relation, epsilon, delta, mechanism, accountant",
        "Privacy statement",
    ),
    ("NIST SP 800-226", "what is released, trust, tuning", "first lines; Privacy statement"),
    ("Model card", "factors, metrics by factor", "Results by group"),
    ("Model card", "intended use", "to be written by the authors"),
    ("Model card", "caveats", "Limits"),
)


def crosswalk() -> pd.DataFrame:
    """Returns columns item, asks for, answered in."""
    titles = ", ".join(metric.title for metric in METRICS.values())
    rows = [(item, asked, where.format(metrics=titles)) for item, asked, where in _ITEMS]
    return pd.DataFrame(rows, columns=["item", "asks for", "answered in"])
