"""The tables and plots of a grid, from the predictions of its finished runs.

Each fold has its own model, so scores are put on one scale before folds are pooled: the logit
of a score minus the mean logit of that run's validation images, over their standard deviation.
A decision is made at the run's own threshold, Youden's on its validation images.
"""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.special
import scipy.stats

from jaxfair.errors import InputError
from jaxfair.fairness import delong
from jaxfair.fairness.compare import private_against_plain
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.gaps import max_min_gap
from jaxfair.fairness.groups import OVERALL, group_labels
from jaxfair.fairness.metrics import auroc
from jaxfair.fairness.parity import loss_correlations
from jaxfair.fairness.predictions import patient_codes
from jaxfair.fairness.reading import read_predictions
from jaxfair.fairness.thresholds import fit_threshold
from jaxfair.schema import UNKNOWN

ATTRIBUTES = ("sex", "age_group")
Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def pooled_rows(out: pathlib.Path) -> pd.DataFrame:
    """Returns the test rows of all finished runs with columns epsilon, seed, fold and `called`.

    `y_score` is on the common scale and `called` the decision, 0 or 1; it is NaN where the run's
    validation images have one class alone, and all decisions of that epsilon are undefined then.
    """
    parts = []
    for path in sorted(out.glob("runs/*/predictions.parquet")):
        marks = dict(part.split("-", 1) for part in path.parent.name.split("_"))
        told = read_predictions(path)
        numbers = {name: float(marks.get(name, 0)) for name in ("epsilon", "fold", "seed")}
        parts += [_aligned(rows).assign(**numbers) for _, rows in told.groupby("task")]
    if not parts:
        raise InputError(f"{out}/runs holds no finished run.")
    return pd.concat(parts, ignore_index=True)


def complete(rows: pd.DataFrame) -> pd.DataFrame:
    """Leaves out an epsilon's seed that has not tested as many images as the fullest one."""
    size = rows.groupby(["epsilon", "seed"])["image_id"].transform("size")
    return rows[size == size.max()].reset_index(drop=True)


def by_fold(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the plain AUROC of every run."""
    keys = ["epsilon", "task", "fold", "seed"]
    found = [(*key, auroc(part["y_true"], part["y_score"])) for key, part in rows.groupby(keys)]
    return pd.DataFrame(found, columns=[*keys, "auroc"])


def levels(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns AUROC by epsilon, task and group: pooled over folds, averaged over seeds.

    `ci_low` and `ci_high` are for other patients with these models; `sd_seeds` is the spread
    from seed to seed, `mean_of_folds` the mean of each run's own AUROC in the group.
    """
    found = []
    for epsilon, task, seeds in _arms(rows):
        for attribute, group, inside in _groups(seeds[0]):
            estimates = [_estimate(seed, inside) for seed in seeds]
            mean = _mean(estimates)
            own = [
                auroc(f["y_true"], f["y_score"])
                for s in seeds
                for _, f in s[inside].groupby("fold")
            ]
            values = [estimate.value for estimate in estimates]
            low, high = delong.logit_interval(mean)
            found.append({
                "epsilon": epsilon, "task": task, "attribute": attribute, "group": group,
                **_counts(seeds[0], inside), "value": mean.value, "ci_low": low, "ci_high": high,
                "mean_of_folds": np.mean(own), "seeds": len(seeds),
                "sd_seeds": np.std(values, ddof=1) if len(values) > 1 else np.nan,
            })  # fmt: skip
    return pd.DataFrame(found)


def averages(levels: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean AUROC over all labels by group; undefined where one label's is."""
    keys = ["epsilon", "attribute", "group"]
    found = levels.groupby(keys, sort=False)["value"]
    table = found.agg(value=lambda v: v.mean(skipna=False), labels="size").reset_index()
    return table if len(table) and table["labels"].max() > 1 else table.iloc[:0]


def decisions(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns accuracy, sensitivity and specificity by group, over all seeds."""
    found = []
    for epsilon, task, seeds in _arms(rows):
        both, label = pd.concat(seeds, ignore_index=True), seeds[0]["y_true"]
        right = _right(both)
        for attribute, group, inside in _groups(seeds[0]):
            kinds = {"accuracy": inside, "sensitivity": inside & (label == 1).to_numpy(),
                     "specificity": inside & (label == 0).to_numpy()}  # fmt: skip
            for metric, chosen in kinds.items():
                value, part = _share(both, right, np.tile(chosen, len(seeds)))
                low, high = _logit_bounds(value, part)
                found.append((epsilon, task, attribute, group, metric, value, low, high))
    names = ["epsilon", "task", "attribute", "group", "metric", "value", "ci_low", "ci_high"]
    return pd.DataFrame(found, columns=names)


def parity(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns each group minus the rest: `accuracy` (DP_CXR's) and the share called positive.

    DP_CXR calls the difference of accuracies "statistical parity difference"; the name belongs
    to the difference of the shares called positive. Of sex, women minus men is shown.
    """
    found = []
    for epsilon, task, seeds in _arms(rows):
        both = pd.concat(seeds, ignore_index=True)
        called = both["called"].to_numpy(float)
        kinds = {"accuracy": _right(both), "called positive": called}
        for attribute, group, inside in _groups(seeds[0]):
            if attribute == OVERALL or group == UNKNOWN or (attribute, group) == ("sex", "M"):
                continue
            labels = group_labels(seeds[0], attribute)
            rest = labels == "M" if attribute == "sex" else labels != group
            for kind, values in kinds.items():
                own, part = _share(both, values, np.tile(inside, len(seeds)))
                other, part_rest = _share(both, values, np.tile(rest, len(seeds)))
                half = 1.96 * np.sqrt(np.sum((part - part_rest) ** 2))
                gap = own - other
                found.append((epsilon, task, attribute, group, kind, gap, gap - half, gap + half))
    names = ["epsilon", "task", "attribute", "group", "of", "value", "ci_low", "ci_high"]
    return pd.DataFrame(found, columns=names)


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns AUROC lost to privacy by group: plain minus private, and how unevenly."""
    found = []
    for task, part in rows.groupby("task"):
        arms = {e: seeds for e, _, seeds in _arms(part)}
        plain = arms.pop(np.inf, None)
        for epsilon, private in arms.items():
            for attribute in (OVERALL, *ATTRIBUTES) if plain else ():
                table = private_against_plain(plain, private, attribute)
                found.append(table.assign(epsilon=epsilon, task=task, attribute=attribute))
    if not found:
        return pd.DataFrame(columns=["epsilon", "task", "attribute", "group"])
    keys = ["epsilon", "task", "attribute", "group"]
    table = pd.concat(found, ignore_index=True)
    return table[keys + [name for name in table if name not in keys]]


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns max-min gaps of the AUROC, mean over seeds, beside what chance alone gives."""
    found = []
    for epsilon, task, seeds in _arms(rows):
        for attribute in ATTRIBUTES:
            frame = GroupFrame(seeds[0], attribute)
            kept = ~np.isin(frame.labels.astype(str), frame.too_few)
            if len(set(frame.labels[kept])) < 2:
                continue
            tests = [
                max_min_gap(s["y_true"][kept], s["y_score"][kept], frame.labels[kept],
                            s["patient_id"][kept], seed=0, n_replicates=499)
                for s in seeds
            ]  # fmt: skip
            value, null_mean, null_95 = np.mean([t[:1] + t[2:4] for t in tests], axis=0)
            p = ", ".join(f"{t.p_value:.3f}" for t in tests)
            found.append((epsilon, task, attribute, value, null_mean, null_95, p))
    names = ["epsilon", "task", "attribute", "value", "null_mean", "null_95", "p_by_seed"]
    return pd.DataFrame(found, columns=names)


def correlations(rows: pd.DataFrame, auroc: pd.DataFrame, parity: pd.DataFrame) -> pd.DataFrame:
    """Returns Pearson's r of the privacy loss over subgroups (and labels), and of parity.

    The plain level comes from other seeds than the loss (protocol S5), so it needs two.
    """
    seeds = sorted(rows.loc[np.isinf(rows["epsilon"]), "seed"].unique())
    known = auroc[(auroc["attribute"] != OVERALL) & ~auroc["too_few"]]
    keys, found = ["task", "attribute", "group"], []
    if not seeds:
        return pd.DataFrame(columns=["epsilon", "pair", "r", "ci_low", "ci_high", "n"])
    half = seeds[: len(seeds) // 2]
    plain_rows = rows[np.isinf(rows["epsilon"])]
    plain = levels(plain_rows[~plain_rows["seed"].isin(half)]).set_index(keys)["value"]
    level = (
        levels(plain_rows[plain_rows["seed"].isin(half)]).set_index(keys)["value"] if half else None
    )
    for epsilon, private in known[np.isfinite(known["epsilon"])].groupby("epsilon"):
        private = private.set_index(keys)
        sizes = {
            "group size": private["n"],
            "prevalence": private["n_positive"] / private["n_images"],
        }
        base = plain[private.index]
        given = base if level is None else level[private.index]
        for name, size in sizes.items():
            table = loss_correlations(given, base, private["value"], size)
            table["pair"] = table["pair"].str.replace("samples", name)
            if level is None:
                table = table[~table["pair"].str.contains("plain level")]
            found.append(table.assign(epsilon=epsilon))
    if not found:
        return pd.DataFrame(columns=["epsilon", "pair", "r", "ci_low", "ci_high", "n"])
    table = pd.concat(found).drop_duplicates(["epsilon", "pair"])
    return pd.concat([table, _trend(parity)])[["epsilon", "pair", "r", "ci_low", "ci_high", "n"]]


def _trend(parity: pd.DataFrame) -> pd.DataFrame:
    """Pearson's r of the difference of accuracies between the sexes with epsilon, by task."""
    found = []
    sexes = parity[(parity["attribute"] == "sex") & np.isfinite(parity["epsilon"])]
    tasks = sexes["task"].nunique()
    for (task, kind), part in sexes.groupby(["task", "of"]):
        r = low = high = np.nan
        if len(part) > 3 and np.ptp(part["value"]) > 0:
            test = scipy.stats.pearsonr(part["epsilon"], part["value"])
            r, (low, high) = test.statistic, test.confidence_interval()
        pair = f"epsilon, women minus men ({kind}{f', {task}' if tasks > 1 else ''})"
        found.append({"pair": pair, "r": r, "ci_low": low, "ci_high": high, "n": len(part)})
    return pd.DataFrame(found)


def _aligned(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the test rows of one run and task on the scale of its validation images."""
    validation = rows[rows["split"] == "validation"]
    threshold = fit_threshold(validation["y_true"], validation["y_score"], "youden")
    logits = _logit(validation["y_score"])
    test = rows[rows["split"] == "test"]
    scores = (_logit(test["y_score"]) - logits.mean()) / max(float(logits.std()), 1e-9)
    called = (test["y_score"] >= threshold).astype(float)
    return test.assign(y_score=scores, called=called if np.isfinite(threshold) else np.nan)


def _logit(scores: pd.Series) -> pd.Series:
    return scipy.special.logit(scores.clip(1e-12, 1 - 1e-12))


def _arms(rows: pd.DataFrame) -> Iterator[tuple[float, str, list[pd.DataFrame]]]:
    """Yields epsilon, task and the pooled rows of each seed, in one order of images."""
    for (epsilon, task), part in rows.groupby(["epsilon", "task"]):
        ordered = part.sort_values("image_id")
        yield (
            float(epsilon),
            str(task),
            [s.reset_index(drop=True) for _, s in ordered.groupby("seed")],
        )


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, str, Bools]]:
    for attribute in (OVERALL, *ATTRIBUTES):
        frame = GroupFrame(rows, attribute)
        for group in frame.groups:
            yield attribute, group, np.asarray(frame.labels == group)


def _counts(rows: pd.DataFrame, inside: Bools) -> dict[str, object]:
    counts = GroupFrame(rows[inside]).counts().iloc[0]
    return {"n": counts["patients"], "n_images": counts["images"],
            "n_positive": counts["positives"], "too_few": bool(counts["too_few"])}  # fmt: skip


def _estimate(rows: pd.DataFrame, inside: Bools) -> delong.Estimate:
    patients, n_patients = patient_codes(rows)
    part = rows[inside]
    return delong.auroc_estimate(
        part["y_true"], part["y_score"], patients[inside], n_patients=n_patients
    )


def _mean(seeds: Sequence[delong.Estimate]) -> delong.Estimate:
    """The mean over seeds on the same patients: each patient's parts are averaged."""
    parts = np.mean([seed.parts for seed in seeds], axis=0)
    mean = seeds[0]._replace(value=float(np.mean([s.value for s in seeds])), parts=parts)
    return mean._replace(variance=max(delong.covariance(mean, mean), 0.0))


def _right(rows: pd.DataFrame) -> Array:
    """1 where the decision is right, 0 where it is wrong, NaN where there is none."""
    right = (rows["called"] == rows["y_true"]).astype(float)
    return right.where(rows["called"].notna()).to_numpy()


def _share(rows: pd.DataFrame, values: Array, inside: Bools) -> tuple[float, Array]:
    """Returns the mean of `values` inside, and what each patient contributes to its error."""
    patients, n_patients = patient_codes(rows)
    if not inside.any():
        return float("nan"), np.full(n_patients, np.nan)
    mean = float(values[inside].mean())
    parts = (values[inside] - mean) / inside.sum()
    return mean, np.bincount(patients[inside], parts, minlength=n_patients)


def _logit_bounds(value: float, parts: Array) -> tuple[float, float]:
    if not 0 < value < 1:
        return float("nan"), float("nan")
    half = 1.96 * np.sqrt(np.sum(parts**2)) / (value * (1 - value))
    low, high = scipy.special.expit(scipy.special.logit(value) + np.array([-half, half]))
    return float(low), float(high)
