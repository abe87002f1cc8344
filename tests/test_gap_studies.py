"""e01_dp_gap and e08_mitigation: grids, arms, statistics and pages, on made numbers."""

import contextlib
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments.arms import features
from experiments.e01_dp_gap import study as e01
from experiments.e01_dp_gap import tables as e01_tables
from experiments.gaps import command, levels, runs, sets, trainings
from experiments.gaps.runs import Kept
from jaxfair.config import settings_from_config
from jaxfair.data.composing import composed
from jaxfair.data.config import make_data_config
from jaxfair.data.dataset import Dataset
from jaxfair.data.examples import VALUES
from jaxfair.errors import InputError
from jaxfair.fairness.influence import difference
from jaxfair.methods.base import Method, carrying
from tests.made_gaps import people, placed, scored

PLAIN = math.inf


def test_a_change_has_the_variance_of_patients_and_of_both_arms_seeds():
    table = people()
    labels = levels.pair_labels(table, "sex")
    arm = lambda gap, first: [
        levels.gap_of(levels.estimates(scored(table, gap, s), labels, "AUROC"), ("men", "women"))
        for s in range(first, first + 5)
    ]
    before, after = arm(1.0, 0), arm(0.2, 50)
    found = levels.change(before, after)
    values = [np.array([e.value for e in a]) for a in (before, after)]
    assert found.value == pytest.approx(values[1].mean() - values[0].mean())
    paired = np.mean([e.deviations for e in after], 0) - np.mean([e.deviations for e in before], 0)
    seeds = sum(v.var(ddof=1) / 5 for v in values)
    assert found.se**2 == pytest.approx((paired**2).sum() + seeds)
    assert found.ci_low < found.value < found.ci_high < 0 and found.p_value < 0.05


def test_the_level_of_one_arm_is_its_mean_with_patients_and_seeds():
    table = people()
    labels = levels.pair_labels(table, "sex")
    seeds = [levels.estimates(scored(table, 0.5, s), labels, "sAUROC")["women"] for s in range(5)]
    found = levels.level(seeds)
    spread = np.mean([e.deviations for e in seeds], axis=0)
    variance = (spread**2).sum() + np.var([e.value for e in seeds], ddof=1) / 5
    assert found.se**2 == pytest.approx(variance)
    assert np.isnan(levels.level(seeds[:4]).ci_low), "no interval below five seeds"
    assert levels.level(seeds[:4]).value == pytest.approx(np.mean([e.value for e in seeds[:4]]))


def test_a_subgroups_auroc_is_its_negatives_against_all_positives():
    table = scored(people(), 1.0)
    labels = levels.pair_labels(table, "age")
    found = levels.estimates(table, labels, "sAUROC")["young"]
    kept = table[labels != ""]
    up = kept.loc[kept["y_true"] == 1, "y_score"].to_numpy()
    low = table.loc[(labels == "young") & (table["y_true"] == 0), "y_score"].to_numpy()
    assert found.value == pytest.approx((up[:, None] > low[None]).mean())
    assert set(table.loc[labels == "young", "age"]) <= set(range(31))
    assert table.loc[labels == "old", "age"].min() >= 61


def test_a_weighted_sum_of_estimates_is_their_difference_where_weights_are_one_and_minus_one():
    table = scored(people(), 1.0)
    labels = levels.pair_labels(table, "sex")
    one, other = (levels.estimates(table, labels, "AUROC")[name] for name in ("men", "women"))
    both = levels.combined([one, other], [1.0, -1.0])
    assert both.value == pytest.approx(difference(one, other).value)
    assert both.variance == pytest.approx(difference(one, other).variance)


def test_power_is_what_repeated_tests_find():
    found = levels.Level(0.1, 0, 0, 0, se=0.05, df=12.0, sd_patients=0, sd_seed=0, seeds=5)
    rng = np.random.default_rng(0)
    moved = rng.normal(0.12, 0.05, 20_000)
    errors = 0.05 * np.sqrt(rng.chisquare(12, 20_000) / 12)
    detected = (np.abs(moved / errors) > 2.178813).mean()
    assert levels.power(0.12, found) == pytest.approx(detected, abs=0.01)
    assert np.isnan(levels.power(0.12, found._replace(df=float("nan"))))


@pytest.mark.parametrize("attribute", ["sex", "age", "view"])
def test_the_share_of_group_a_is_what_was_asked_and_the_number_of_patients_stays(attribute):
    rng = np.random.default_rng(0)
    a, b = e01.PEOPLE[attribute]
    column, values_a, values_b = e01._OF[attribute]
    side = rng.random(12_000) < a / (a + b)
    of = lambda values: rng.choice(values, len(side))
    table = pd.DataFrame({
        "image_id": np.arange(len(side)).astype(str),
        "patient_id": np.arange(len(side)).astype(str),
        column: np.where(side, of(values_a), of(values_b)),
    })  # fmt: skip
    least = min(a, b) / (a + b) * len(side)
    for share in e01.SHARES:
        fields = e01.keep_of(attribute, share) | {"source": "rsna", "split": "patient"}
        how = make_data_config(**fields).composition
        stays = composed(table, np.full(len(table), "train", object), how, VALUES) == "train"
        assert stays.sum() == pytest.approx(least, rel=0.06)
        assert side[stays].mean() == pytest.approx(share, abs=0.04)


def test_whole_seeds_come_first_and_every_run_has_a_config_that_holds():
    found = e01.make("default")
    assert [run.seed for run in found] == sorted(run.seed for run in found)
    assert len({run.place for run in found}) == len(found)
    count = {name: sum(run.method == name for run in found) for name in trainings.DETECTORS}
    assert count["fae"] == 3 * 5 * (3 + 2 + 2)
    alike = "without noise all seeds are the same"
    assert count["gaussian"] == 5 * 2 * ((1 + 5 * 5) + 2 * (1 + 2 * 5)), alike
    assert count["ssim_autoencoder"] == 3 * 2 * 5
    for run in found[:40]:
        settings = settings_from_config(run.config)
        assert settings.dp.enabled == (run.epsilon < PLAIN)
        least = min(e01.PEOPLE[run.data.split("-")[0]]) * sets.FILMS["default"]
        assert settings.data.public_size == pytest.approx(least, abs=5.01)


@functools.cache
def sex_runs():
    kept = [run for run in e01.make("quick") if run.data.startswith("sex") and run.method == "fae"]
    return [run._replace(seed=seed) for run in kept if run.seed == 1 for seed in range(1, 6)]


def test_a_training_without_anything_random_stands_for_all_seeds(tmp_path):
    kept = [r for r in e01.make("quick") if r.method == "gaussian" and r.data.startswith("sex")]
    assert [r.seed for r in kept if r.epsilon == PLAIN] == [1, 1, 1]
    table = people()
    for run in (r for r in kept if r.epsilon == PLAIN):
        placed(tmp_path, run, scored(table, 0.5 * float(run.data.split("-")[1])))
    made = e01_tables.made(kept, tmp_path)
    assert (made.levels["sd_seed"] < 1e-9).all() and made.levels["ci_low"].notna().all()
    law = made.laws.set_index(["metric", "group"]).loc[("AUROC", "women")]
    assert law["regression_p"] > 0.01, "three shares of one training are three points"


def test_e01_finds_a_gap_that_privacy_widens_and_a_slope_over_the_composition(tmp_path):
    table = people(1_200)
    for run in sex_runs():
        share = float(run.data.split("-")[1])
        gap = 0.4 + 0.6 * share + 0.5 * (run.epsilon < PLAIN)
        number = 1_000 * (run.epsilon < PLAIN) + 100 * int(4 * share) + run.seed
        placed(tmp_path, run, scored(table, gap, number))
    made = e01_tables.made(sex_runs(), tmp_path)
    auroc = made.widening[made.widening["metric"] == "AUROC"]
    assert (auroc["value"] > 0).all() and (auroc["widened"] > 0).all()
    assert (auroc["p_value"] < 0.05).all() and (auroc["seeds"] == 5).all()
    gaps = made.gaps[made.gaps["metric"] == "AUROC"]
    assert (gaps["null_p"] < 0.1).all()
    assert gaps["excess"].to_numpy() == pytest.approx(
        (gaps["value"].abs() - gaps["null_mean"]).to_numpy()
    )
    laws = made.laws.set_index(["epsilon", "metric", "group"])
    women, men = (laws.loc[(PLAIN, "AUROC", name)] for name in ("women", "men"))
    assert women["ci_high"] < 0 and women["r"] > 0.9
    assert men["ci_low"] < 0 < men["ci_high"]
    assert women["value"] == pytest.approx(-0.12, abs=0.1)
    shown = e01_tables.thesis_table(
        made, 8.0, "AUROC", method="fae", attribute="sex", split=1
    ).set_index("share of A")
    assert list(shown.columns) == ["men", "men (DP)", "women", "women (DP)", "gap", "gap (DP)"]
    worst = gaps[gaps["epsilon"] == PLAIN]["value"].abs().max()
    assert shown.loc["largest, in size", "gap"] == f"{100 * worst:.1f}"


def test_a_page_of_nothing_says_that_it_was_not_run(tmp_path):
    e01.COMMAND.write(sex_runs(), tmp_path)
    assert "**Not run.**" in (tmp_path / "tables" / "tables.md").read_text()


def test_what_is_refused_is_kept_with_its_sentence_and_the_study_goes_on(tmp_path, monkeypatch):
    def refuses(config, folder, independent, train):
        raise InputError("It has no head.")

    monkeypatch.setattr(runs, "run_cell", refuses)
    run = sex_runs()[0]
    runs.train_runs([run], tmp_path, what="toy", progress=False)
    assert runs.kept_of(tmp_path, run) == Kept(
        False, "It has no head.", pytest.approx(math.nan, nan_ok=True), None, ()
    )


def test_a_run_that_another_process_is_at_is_left_to_it_and_waited_for(tmp_path, monkeypatch):
    asked, trained = sex_runs()[:4], []
    elsewhere = contextlib.ExitStack()
    assert elsewhere.enter_context(runs.claimed(tmp_path, asked[0].place))
    with runs.claimed(tmp_path, asked[0].place) as mine:
        assert not mine

    def trains(config, folder, independent, train):
        trained.append(folder)
        if len(trained) == 3:
            elsewhere.close()

    monkeypatch.setattr(runs, "run_cell", trains)
    runs.train_runs(asked, tmp_path, what="toy", progress=False)
    assert trained == [runs.folder_of(tmp_path, run) for run in (*asked[1:], asked[0])]


def test_a_part_is_trained_alone_and_writes_no_page(tmp_path):
    seen = []
    toy = e01.COMMAND._replace(
        make=lambda size, root: sex_runs(),
        run=lambda runs, out: seen.append({run.data.split("-")[0] for run in runs}),
        write=lambda runs, out: seen.append(len(runs)),
    )
    out = ["--out", str(tmp_path), "--quick"]
    assert command.main(toy, [*out, "--data", "sex", "--method", "fae"]) == 0
    assert seen == [{"sex"}]
    assert command.main(toy, [*out, "--data", "sex", "--tables"]) == 0
    assert seen == [{"sex"}, len(sex_runs())], "the page is of all"
    assert command.main(toy, [*out, "--data", "height"]) == 2


def test_seconds_of_a_step_leave_out_the_stretch_that_compiles():
    assert runs._median([(0, 0.0), (10, 60.0), (20, 61.0), (30, 62.0), (40, 64.0)]) == 0.1
    assert runs._median([(0, 0.0), (10, 60.0)]) is None


def toy_dataset(n=5):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"split": ["train", "test", "", "validation", "train"][:n]})
    return Dataset(
        manifest=table.assign(also_test=False, label_anomaly=0.0),
        pixels=rng.integers(0, 255, (n, 4, 4, 1)).astype(np.uint8), data="phantom",
        population="toy", unit="image", selection="independent", digest="", card={},
        folder=pathlib.Path("/nowhere/toy"), tasks=("anomaly",),
    )  # fmt: skip


def test_prepared_arrays_are_computed_once_for_all_methods_that_prepare_alike():
    calls = []

    def prepare(frozen, raw):
        calls.append(1)
        return {"features": raw["image"].mean() * frozen["scale"], "label": raw["label"]}

    method = Method("toy", ("anomaly",), None, None, None, prepare=prepare)
    frozen = {"scale": jnp.float32(2.0), "unread": jnp.float32(1.0)}
    dataset = toy_dataset()
    first = features.with_prepared(dataset, method, frozen, progress=False)
    want = 2 * dataset.images(np.array([0, 1, 3, 4])).mean(axis=(1, 2, 3))
    assert first.prepared["features"][[0, 1, 3, 4]] == pytest.approx(want)
    again = features.with_prepared(
        dataset, method, {**frozen, "unread": jnp.float32(7.0)}, progress=False
    )
    assert again.prepared["features"] is first.prepared["features"]
    spec = dataset.spec | {"group": jax.ShapeDtypeStruct((1,), np.int32)}
    digests = [features._digest(m, frozen, spec) for m in (method, carrying(method, spec))]
    assert digests[0] == digests[1], "as it is trained and as it is scored"
    other = features.with_prepared(
        dataset, method, {**frozen, "scale": jnp.float32(3.0)}, progress=False
    )
    assert other.prepared["features"][0] == pytest.approx(1.5 * want[0])
    taken = features.reading_features(method)
    raw = {name: read(np.array([4])) for name, read in first.fields.items()}
    assert set(raw) == {"image", "label", "label_mask", "features"}
    assert jax.tree.leaves(taken.prepare(frozen, raw))[0] == pytest.approx(want[3])
    blind = method._replace(prepare=lambda frozen, raw: {"features": raw["image"].mean()})
    assert set(features.reading_features(blind).prepare(frozen, raw)) == {"features"}
