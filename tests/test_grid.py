"""The grid of experiments/e03: its tables against the library's numbers, and a run of it."""

import json

import numpy as np
import pandas as pd
import pytest

from experiments.e03_dp_classifier import grid, grid_joint, grid_tables
from jaxfair import files
from jaxfair.errors import InputError
from jaxfair.fairness import delong
from jaxfair.fairness.frame import GroupFrame
from jaxfair.fairness.parity import accuracy_parity
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.schema import age_groups
from tests.test_configs import FOLDER

EXPERIMENT = FOLDER.parent / "experiments" / "e03_dp_classifier"
EPSILONS = (1.0, 8.0, np.inf)
PUBLISHED = ("results", "results/resnet", "results/joined")


def write_run(out, epsilon, fold, seed, n=600, folds=2):
    """A made run: each patient is tested in one fold; less noise with a larger epsilon."""
    people = np.random.default_rng(7)
    patient = np.arange(n)
    label = (people.random(n) < 0.3).astype(float)
    age = np.where(patient < 20, np.nan, people.uniform(18, 76, n))  # a group that is too small
    sex = people.choice(["F", "M"], n)
    rng = np.random.default_rng([seed, fold, int(min(epsilon, 99))])
    noise = 1 + (0 if np.isinf(epsilon) else 1 / epsilon)
    score = 1 / (1 + np.exp(-(1.5 * label - 2 + fold + noise * rng.standard_normal(n))))
    split = np.where(patient % folds == fold, "test", "validation")
    table = pd.DataFrame({
        "image_id": [f"i{p:04d}" for p in patient], "patient_id": [f"p{p:04d}" for p in patient],
        "split": split, "task": "malignant", "y_true": label, "y_score": score, "sex": sex,
        "age": age, "view": "unknown",
    })  # fmt: skip
    table["age_group"] = age_groups(age)
    folder = out / "runs" / f"epsilon-{epsilon:g}_fold-{fold}_seed-{seed}"
    files.write_table(folder / "predictions.parquet", table)
    promise = dict.fromkeys(["epsilon_rdp", "unit", "l2_clip_norm", "grade", "tuning"])
    if np.isinf(epsilon):
        rates = dict.fromkeys(["sampling_prob", "noise_multiplier", "steps", "epsilon", "delta"])
    else:
        rates = {"sampling_prob": 1.0, "noise_multiplier": 40 / epsilon, "steps": 5}
        rates |= {"epsilon": epsilon, "delta": 1e-5}
    files.write_json(folder / "privacy.json", promise | rates)
    files.write_json(folder / "config.json", {"data": {"split": "folds", "folds": folds}})


@pytest.fixture
def made(tmp_path):
    for epsilon in EPSILONS:
        for fold in (0, 1):
            for seed in (1, 2):
                write_run(tmp_path, epsilon, fold, seed)
    return tmp_path


def test_every_patient_is_tested_once_per_seed_and_folds_share_one_scale(made):
    rows = grid_tables.pooled_rows(made)
    assert (rows.groupby(["epsilon", "seed"])["image_id"].nunique() == 600).all()
    assert not rows.duplicated(["epsilon", "seed", "image_id"]).any()
    negatives = rows[rows["y_true"] == 0].groupby("fold")["y_score"].mean()
    assert abs(negatives[0] - negatives[1]) < 0.1, "the made folds lie one logit apart"


def two_labels(out):
    """Adds a second label to every made run; nobody who validates in fold 1 has it."""
    for path in out.glob("runs/*/predictions.parquet"):
        table = pd.read_parquet(path)
        rare = table.assign(task="rare", y_true=1 - table["y_true"])
        if "fold-1" in path.parent.name:
            rare.loc[rare["split"] == "validation", "y_true"] = 0.0
        files.write_table(path, pd.concat([table, rare], ignore_index=True))


def test_a_threshold_that_could_not_be_fitted_decides_nothing(made):
    two_labels(made)
    rows = grid_tables.pooled_rows(made)
    part = rows[(rows["task"] == "rare") & (rows["fold"] == 1)]
    assert part["called"].isna().all() and rows.loc[rows["fold"] == 0, "called"].notna().all()
    decisions = grid_tables.decisions(rows).set_index(["task", "group"])["value"]
    assert decisions["rare", "all"].isna().all() and decisions["malignant", "all"].notna().all()
    parity = grid_tables.parity(rows)
    assert parity.loc[parity["task"] == "rare", "value"].isna().all()


def test_several_labels_have_a_mean_and_correlations_of_their_own(made):
    two_labels(made)
    grid.write_tables(made)
    auroc = pd.read_csv(made / "auroc.csv")
    means = pd.read_csv(made / "averages.csv").set_index(["epsilon", "group"])["value"]
    own = auroc[auroc["group"] == "F"].groupby("epsilon")["value"].mean()
    for epsilon in EPSILONS:
        assert means[epsilon, "F"] == pytest.approx(own[epsilon], abs=1e-3)
    pairs = pd.read_csv(made / "correlations.csv")["pair"]
    assert pairs.str.contains(r"\(accuracy, malignant\)").any()
    text, few = (made / "tables.md").read_text(), set(auroc.loc[auroc["too_few"], "group"])
    assert "# Mean AUROC over all labels" in text
    assert few and not any(f"| {group} |" in text for group in few)


def test_an_unfinished_seed_is_left_out(made):
    write_run(made, 1.0, 0, 3)
    rows = grid_tables.pooled_rows(made)
    assert set(rows["seed"]) == {1, 2, 3}
    assert set(grid_tables.complete(rows)["seed"]) == {1, 2}


def test_levels_are_the_means_of_the_seeds_with_the_patients_intervals(made):
    rows = grid_tables.pooled_rows(made)
    table = grid_tables.levels(rows).set_index(["epsilon", "attribute", "group"])
    seeds = [rows[(rows["epsilon"] == 8) & (rows["seed"] == s)] for s in (1, 2)]
    truth = [delong.auroc_estimate(s["y_true"], s["y_score"]) for s in seeds]
    row = table.loc[(8.0, "overall", "all")]
    assert row["value"] == pytest.approx(np.mean([t.value for t in truth]))
    widths = [np.ptp(delong.logit_interval(t)) for t in truth]
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert row["ci_high"] - row["ci_low"] <= max(widths) + 1e-9
    assert row["n"] == 600 and row["seeds"] == 2
    order = table.xs(("overall", "all"), level=(1, 2))["value"]
    assert order[1.0] < order[8.0] < order[np.inf]


def test_one_seed_has_delongs_interval(made):
    rows = grid_tables.pooled_rows(made)
    one = rows[(rows["epsilon"] == 8) & (rows["seed"] == 1)]
    row = grid_tables.levels(one).iloc[0]
    truth = delong.logit_interval(delong.auroc_estimate(one["y_true"], one["y_score"]))
    np.testing.assert_allclose((row["ci_low"], row["ci_high"]), truth)


def test_differences_of_accuracy_are_those_of_the_library(made):
    rows = grid_tables.pooled_rows(made)
    one = rows[(rows["epsilon"] == 8) & (rows["seed"] == 1)]
    table = grid_tables.parity(one).set_index(["of", "attribute", "group"])["value"]
    for attribute in ("sex", "age_group"):
        frame = GroupFrame(one.assign(y_score=one["called"]), attribute)
        for group, value in accuracy_parity(frame, 0.5).items():
            if ("accuracy", attribute, group) in table.index:
                assert table["accuracy", attribute, group] == pytest.approx(value)
    assert ("accuracy", "sex", "M") not in table.index, "two groups have one difference"


def test_intervals_of_shares_are_those_of_a_binomial_for_one_image_per_patient(made):
    rows = grid_tables.pooled_rows(made)
    one = rows[(rows["epsilon"] == 8) & (rows["seed"] == 1)]
    table = grid_tables.decisions(one).set_index(["group", "metric"])
    row = table.loc[("all", "accuracy")]
    p = (one["called"] == one["y_true"]).mean()
    half = 1.96 / np.sqrt(600 * p * (1 - p))
    logit = np.log(p / (1 - p))
    expected = 1 / (1 + np.exp(-(logit + np.array([-half, half]))))
    np.testing.assert_allclose((row["ci_low"], row["ci_high"]), expected, rtol=1e-6)


def test_the_loss_is_correlated_with_levels_of_other_seeds(made):
    rows = grid_tables.pooled_rows(made)
    auroc, parity = grid_tables.levels(rows), grid_tables.parity(rows)
    pairs = set(grid_tables.correlations(rows, auroc, parity)["pair"])
    assert {"loss, plain level", "loss, group size", "loss, prevalence"} <= pairs
    one = rows[rows["seed"] == 1]
    pairs = set(grid_tables.correlations(one, grid_tables.levels(one), parity)["pair"])
    assert "loss, plain level" not in pairs, "one seed has no other seed"


def test_the_tables_are_written_and_small_groups_hidden(made):
    grid.write_tables(made)
    names = {path.name for path in made.iterdir()}
    assert {"auroc.csv", "decisions.csv", "parity.csv", "loss.csv", "correlations.csv",
            "folds.csv", "gaps.csv", "tables.md", "privacy.json",
            "joint.csv", "auroc_malignant.png", "gaps_malignant.png"} <= names  # fmt: skip
    assert len(json.loads((made / "privacy.json").read_text())) == 12
    few = pd.read_csv(made / "auroc.csv").query("too_few")
    text = (made / "tables.md").read_text()
    assert "| epsilon 1 | epsilon 8 | no DP |" in text
    assert len(few) and not any(f"| {group} |" in text for group in set(few["group"]))
    assert "| sex | F |" in text


def test_the_tables_say_what_they_cost_together(made):
    """Of two folds everybody is in one, and two seeds are two runs: two of four of a column."""
    grid.write_tables(made)
    joint = pd.read_csv(made / "joint.csv").set_index("epsilon")
    columns = {"1": Event(1.0, 40.0, 10), "8": Event(1.0, 5.0, 10)}
    for name, event in columns.items():
        assert joint.loc[name, "joint"] == pytest.approx(
            accounting.epsilon([event], 1e-5), abs=1e-3
        )
        assert joint.loc[name, "runs"] == 4
    together = accounting.epsilon(columns.values(), 1e-5)
    assert joint.loc["all columns", "joint"] == pytest.approx(together, abs=1e-3)
    assert "| all columns | 8 |" in (made / "tables.md").read_text()


def test_the_page_of_the_experiment_states_the_joint_cost_of_what_it_publishes():
    page = (EXPERIMENT / "README.md").read_text()
    for folder in PUBLISHED:
        stored = pd.read_csv(EXPERIMENT / folder / "joint.csv", dtype={"epsilon": str})
        for row in grid_joint.markdown(stored).splitlines()[2:]:
            assert row in page, row


@pytest.mark.slow
def test_the_stored_joint_costs_follow_from_the_stored_statements():
    every, sums = [], []
    for folder in PUBLISHED:
        told = json.loads((EXPERIMENT / folder / "privacy.json").read_text())
        stored = pd.read_csv(EXPERIMENT / folder / "joint.csv", dtype={"epsilon": str})
        pd.testing.assert_frame_equal(grid_joint.joint_table(told).round(4), stored)
        every += told
        sums.append(f"{grid_joint.joint_table(every)['joint'].iloc[-1]:.3g}")
    page = (EXPERIMENT / "README.md").read_text()
    assert f"{sums[1]} with the network below, and {sums[2]} with the joined probe too" in page


def test_tables_of_plain_runs_alone_leave_out_what_compares(tmp_path):
    for fold in (0, 1):
        write_run(tmp_path, np.inf, fold, 1)
    grid.write_tables(tmp_path)
    assert pd.read_csv(tmp_path / "correlations.csv").empty
    assert "no DP" in (tmp_path / "tables.md").read_text()


def test_cells_are_configs_with_their_own_epsilon_fold_and_seed():
    path = str(FOLDER / "derm_probe.py")
    private = grid.config_of(grid.Cell(0.54, 3, 2), path, ["--config.data.root=x"])
    assert (private.dp.epsilon, private.data.fold, private.seed) == (0.54, 3, 2)
    assert private.optim.learning_rate == pytest.approx(1.08) and private.data.root == "x"
    assert not grid.config_of(grid.Cell(np.inf, 0, 1), path, []).dp.enabled


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--epsilons", "1;8"], "'1;8' is no list of numbers"),
        (["--folds", "0", "--config.data.split=random"], "has no data.split = 'folds'"),
        (["--config.dp.epsilom=3"], "config.dp.epsilom does not exist"),
    ],
)
def test_wrong_arguments_get_one_sentence(tmp_path, capsys, arguments, sentence):
    path = str(FOLDER / "derm_probe.py")
    assert grid.main(["--config", path, "--out", str(tmp_path), *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no finished run"):
        grid.write_tables(tmp_path)


def test_each_cell_is_trained_by_its_own_config_and_what_another_process_is_at_is_left(
    tmp_path, monkeypatch
):
    trained = []
    monkeypatch.setattr(grid, "run_cell", lambda *given: trained.append(given))
    monkeypatch.setattr(grid, "write_tables", lambda out: None)
    with grid.claimed(tmp_path, "epsilon-8_fold-1_seed-2"):
        path = str(FOLDER / "derm_probe.py")
        grid.run(path, [8.0, np.inf], [1, 2], [0, 1], tmp_path, progress=False)
    told = [(c.dp.epsilon if c.dp.enabled else np.inf, c.data.fold, c.seed) for c, *_ in trained]
    cells = [grid.Cell(e, f, s) for s in (1, 2) for f in (0, 1) for e in (8.0, np.inf)]
    assert told == [tuple(cell) for cell in cells if cell != (8.0, 1, 2)]
    for (_, folder, others), cell in zip(trained, told, strict=True):
        assert folder == tmp_path / "runs" / grid.Cell(*cell).name and others == {}


@pytest.mark.slow
def test_the_grid_trains_each_cell_once_and_ends_with_tables(tmp_path):
    config = str(FOLDER / "derm_probe.py") + ":phantom"
    overrides = [
        f"--config.data.root={tmp_path / 'phantoms'}",
        "--config.data.phantom.n_images=300",
        "--config.data.phantom.pixels=48",
        "--config.data.public_size=120",
        "--config.train.expected_batch_size=120",
        "--config.method.patterns=8",
        "--config.method.colours=8",
        "--config.data.folds=2",
    ]
    out = tmp_path / "out"
    for _ in range(2):  # the second time nothing is trained
        grid.run(config, [8.0, np.inf], [1], [0, 1], out, overrides, progress=False)
    runs = sorted(path.name for path in (out / "runs").iterdir())
    assert runs == [f"epsilon-{e}_fold-{f}_seed-1" for e in ("8", "inf") for f in (0, 1)]
    table = pd.read_csv(out / "auroc.csv")
    assert table["task"].nunique() == 3 and table["value"].notna().any()
