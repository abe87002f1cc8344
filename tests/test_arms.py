"""The frame of the studies of fair representations: grids, tables and plots, on made numbers."""

import types

import numpy as np
import pandas as pd
import pytest

from experiments.arms import cells, cost, plots, published, tables
from experiments.arms import study as driver
from experiments.arms import train as arms_train
from experiments.arms.cells import PLAIN, Arm, Cell, Grid
from experiments.arms.train import predictions_path
from experiments.e05_disentangle import study as e05
from experiments.e06_fairread import study as e06
from jaxfair.config import plan_from_settings, settings_from_config

ARMS = (
    Arm("erm", "ERM", {"name": "linear_probe"}, published="ERM"),
    Arm("fairread", "FairREAD", {"name": "linear_probe"}, published="FairREAD", needs="sex"),
    Arm("batch", "orthogonal in batches", {"name": "linear_probe"}, private="reads others"),
)


def made(folds=(0, 1, 2), seeds=(1, 2), epsilons=(PLAIN, 8.0)):
    """Measures whose means are known: fold f adds f / 100, seed s nothing but noise of mean 0."""
    levels = {
        "erm": {"accuracy": 0.8, "AUROC": 0.9, "delta-AUC": 0.1, "delta-EO": 0.2},
        "fairread": {"accuracy": 0.76, "AUROC": 0.89, "delta-AUC": 0.05, "delta-EO": 0.1},
        "batch": {"accuracy": 0.7, "AUROC": 0.85, "delta-AUC": 0.05, "delta-EO": 0.15},
    }
    rows = []
    for arm, values in levels.items():
        for epsilon in epsilons if arm != "batch" else (PLAIN,):
            for fold in folds:
                for place, seed in enumerate(seeds):
                    shift = 0.01 * (fold - np.mean(folds)) + 0.003 * (place - (len(seeds) - 1) / 2)
                    for per_group in (False, True):
                        mark = {"arm": arm, "epsilon": epsilon, "attribute": "sex", "fold": fold}
                        mark |= {"on": "correlated", "rule": "min_gap", "per_group": per_group}
                        mark |= {"null_mean": 0.02, "null_95": 0.04, "smallest": 400, "seed": seed}
                        rows += [
                            {**mark, "measure": name, "value": value + shift}
                            for name, value in values.items()
                        ]
    return pd.DataFrame(rows)


WHERE = {"attribute": "sex", "on": "correlated", "rule": "min_gap", "per_group": False}


def test_a_measure_is_the_mean_of_its_folds_and_its_spread_that_of_folds():
    found = tables.summary(made()).set_index(list(tables.KEYS))
    row = found.loc[("erm", PLAIN, "sex", "correlated", "min_gap", False, "AUROC")]
    assert row["mean"] == pytest.approx(0.9) and row["sd"] == pytest.approx(0.01)
    assert row["folds"] == 3 and row["runs"] == 6 and row["smallest"] == 400


def test_with_one_fold_the_spread_is_that_of_seeds():
    found = tables.summary(made(folds=(0,), seeds=(1, 2, 3))).set_index(list(tables.KEYS))
    row = found.loc[("erm", PLAIN, "sex", "correlated", "min_gap", False, "AUROC")]
    assert row["sd"] == pytest.approx(0.003) and row["folds"] == 1 and row["runs"] == 3


def test_an_unfinished_fold_weighs_as_much_as_a_finished_one():
    rows = made()
    part = rows[~((rows["fold"] == 2) & (rows["seed"] == 2))]
    found = tables.summary(part).set_index(list(tables.KEYS))
    row = found.loc[("erm", PLAIN, "sex", "correlated", "min_gap", False, "AUROC")]
    assert row["mean"] == pytest.approx(0.9 - 0.0015 / 3)


def test_fate_follows_from_the_printed_columns_but_for_the_misprints():
    """Of every printed row, within what rounding to three digits allows."""
    wrong = []
    for name in ("fairread-2", "fairread-4"):
        printed = published.published(name).rename(columns={"method": "arm", "value": "mean"})
        for target, part in printed[printed["target"] != "Average"].groupby("target"):
            part = part.assign(arm=part["arm"].replace({"ERM": "erm"}))
            plain = part[~part["measure"].str.startswith("FATE")]
            plain = plain.assign(epsilon=PLAIN, null_mean=0, null_95=0, smallest=0, folds=5, runs=5)
            found = tables.with_fate(plain.assign(**WHERE)).set_index(["arm", "measure"])["mean"]
            for key, told in part.set_index(["arm", "measure"])["mean"].items():
                if abs(found[key] - told) > 0.03:
                    wrong.append((target, *key, f"{found[key]:.3f}"))
    assert wrong == [
        ("Fracture", "FCRO", "FATE (EO)", "-0.019"),
        ("Fracture", "FCRO", "FATE (AUC)", "0.161"),
        ("Cardiomegaly", "AL", "FATE (AUC)", "-0.196"),
    ]
    for *_, value in wrong:
        assert value.replace("0.", ".") in published.MISPRINTS


def test_a_fate_whose_divisor_is_chance_is_marked():
    table = tables.with_fate(tables.summary(made()))
    sound = tables.table_of_arms(table, ARMS, epsilon=PLAIN, **WHERE).set_index("method")
    assert sound.loc["FairREAD", "FATE (EO)"] == "0.450"
    assert sound.loc["ERM", "AUROC"] == "0.900 ± 0.010"
    chance = table.assign(null_95=table["null_95"].where(table["measure"] != "delta-EO", 0.3))
    shaky = tables.table_of_arms(chance, ARMS, epsilon=PLAIN, **WHERE).set_index("method")
    assert shaky.loc["FairREAD", "FATE (EO)"] == "0.450~"
    assert shaky.loc["FairREAD", "FATE (AUC)"] == "0.489"


def test_what_was_not_run_says_so_and_why():
    table = tables.with_fate(tables.summary(made()))
    private = tables.table_of_arms(table, ARMS, epsilon=8.0, **WHERE).set_index("method")
    assert private.loc["orthogonal in batches", "runs"] == "none: reads others"
    assert private.loc["FairREAD", "runs"] == 6
    nothing = tables.table_of_arms(table, ARMS, epsilon=1.0, **WHERE)
    assert set(nothing["runs"]) == {"not run", "none: reads others"}
    assert (nothing["AUROC"] == "").all()


def test_printed_rows_stand_under_ours():
    table = tables.with_fate(tables.summary(made()))
    ours = tables.table_of_arms(table, ARMS, epsilon=PLAIN, **WHERE)
    text = tables.beside(ours, published.published("fairread-2"), "Cardiomegaly", ARMS)
    lines = text.splitlines()
    assert lines[0] == (
        "| method | accuracy | AUROC | delta-AUC | delta-EO | FATE (EO) | FATE (AUC) | runs |"
    )
    at = next(i for i, line in enumerate(lines) if line.startswith("| FairREAD |"))
    assert lines[at + 1].startswith(
        "| · printed | 0.781 ± 0.004 | 0.880 ± 0.003 | 0.073 ± 0.007 | 0.113 ± 0.006 | 0.318 |"
    )
    assert sum("printed" in line for line in lines) == 2, "an arm of ours alone has no such row"


def test_thresholds_pooled_and_per_subgroup_are_two_rows():
    rules = tables.table_of_rules(
        tables.with_fate(tables.summary(made())), ARMS[1:2], ["min_gap", "youden"],
        attribute="sex", epsilon=PLAIN, on="correlated",
    )  # fmt: skip
    assert rules["thresholds"].tolist() == ["pooled", "per subgroup"]
    assert rules["rule"].unique().tolist() == ["min_gap"], "what was not measured has no row"


def test_the_thesis_shape_has_a_column_per_arm():
    table = tables.with_fate(tables.summary(made()))
    found = tables.thesis_shape(table, ARMS[:2], epsilon=PLAIN, **WHERE)
    assert found.columns.tolist() == ["metric", "ERM", "FairREAD"]
    wide = found.set_index("metric")
    assert wide.loc["AUC gap (groups)", "FairREAD"] == "0.050 ± 0.010"
    assert wide.loc["calibration difference", "ERM"] == ""


def test_a_gap_stands_beside_its_null_and_its_excess():
    gaps = tables.gaps_with_nulls(tables.summary(made()), ARMS, epsilon=PLAIN, **WHERE)
    row = gaps[(gaps["arm"] == "erm") & (gaps["measure"] == "delta-EO")].iloc[0]
    assert row["excess"] == pytest.approx(0.18) and row["null_95"] == pytest.approx(0.04)
    assert plots.gaps_figure(gaps).axes[0].get_xlabel() == "delta-EO"


def test_the_front_holds_whom_nobody_beats_in_both():
    points = pd.DataFrame(
        {"AUROC": [0.9, 0.89, 0.85, 0.9], "delta-EO": [0.2, 0.1, 0.15, 0.2]},
        index=["erm", "fairread", "batch", "twin"],
    )
    assert plots.on_front(points) == ["erm", "fairread", "twin"]
    figure = plots.pareto_figure(tables.summary(made()), ARMS)
    points = [line for line in figure.axes[0].lines if len(line.get_xdata())]
    filled = [line.get_markerfacecolor() != "none" for line in points]
    assert filled == [True, True, False, True, True]


def test_a_cell_is_known_by_its_folder():
    for cell in (Cell("erm", PLAIN, 0, 1), Cell("fairread-published", 8.0, 4, 5)):
        assert Cell.named(cell.name) == cell


def test_an_arm_that_cannot_be_private_is_trained_without_privacy_alone():
    grid = Grid((PLAIN, 8.0), (0, 1), (1, 2))
    found = grid.cells(ARMS)
    assert len(found) == len(set(found)) == 2 * 2 * (2 + 2 + 1)
    assert not any(cell.arm == "batch" and cell.epsilon == 8 for cell in found)
    assert {cell.seed for cell in found[:10]} == {1}, "whole seeds come first"


def test_a_cells_config_counts_the_search_and_takes_what_it_chose():
    table = {"file": "t.csv", "image": "i", "labels": ("l",)}
    data = {"source": "table", "split": "folds", "table": table}
    training = {"optim": {"name": "sgd", "learning_rate": 0.1}, "dp": {"l2_clip_norm": 1.0},
                "train": {"steps": 3, "expected_batch_size": 8}}  # fmt: skip
    rates = tuple({"optim.learning_rate": rate} for rate in (0.1, 0.3, 0.5))
    arm = ARMS[0]._replace(settings=rates, when_private={"patterns": 8})
    config = cells.config_of(Cell("erm", 8.0, 3, 2), arm, data, training, rates[2])
    assert (config.data.fold, config.seed, config.dp.epsilon) == (3, 2, 8.0)
    assert config.dp.tuning_runs == 3 and config.optim.learning_rate == 0.5 and config.dp.enabled
    plain = cells.config_of(Cell("erm", PLAIN, 0, 1), arm, data, training, rates[0])
    assert not plain.dp.enabled and (config.method.patterns, plain.method.patterns) == (8, 48)


@pytest.mark.parametrize("study", [e05, e06], ids=["e05", "e06"])
def test_every_arm_has_as_many_settings_as_any_other_and_a_config_that_holds(study):
    """For every network, data set and epsilon at which it trains."""
    made_of = study.make(quick=True)
    for part in made_of.parts:
        assert len({len(arm.settings) for arm in part.arms}) == 1, "an equal search"
        assert len({arm.name for arm in part.arms}) == len(part.arms)
        assert not any("_" in arm.name for arm in part.arms)
        arms = {arm.name: arm for arm in part.arms if part.name not in arm.skip}
        for data in (d for d in made_of.data if part in made_of.parts_on(d)):
            for cell in part.grid.cells(arms.values()):
                for setting in arms[cell.arm].settings:
                    config = driver.config(data, part, cell, arms[cell.arm], setting)
                    plan_from_settings(settings := settings_from_config(config))
                    assert settings.dp.tuning_runs == len(arms[cell.arm].settings)


def test_a_setting_is_chosen_for_its_gap_among_those_near_the_best():
    assert driver.preferred([(0.9, 0.2), (0.895, 0.1), (0.85, 0.0)]) == 1
    assert driver.preferred([(0.9, float("nan")), (0.895, 0.3)]) == 1
    assert driver.preferred([(0.9, float("nan"))]) == 0


def test_a_data_set_that_is_not_at_hand_is_left_out_with_its_reason(tmp_path, capsys):
    study = e06.make(quick=True)
    gone = study.data[1]._replace(missing="There is no metadata.csv: get it.")
    driver.run(study._replace(data=(gone,)), tmp_path, progress=False)
    assert "not run. There is no metadata.csv: get it." in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("study", [e05, e06], ids=["e05", "e06"])
def test_a_page_of_nothing_says_that_it_was_not_run(study, tmp_path):
    made_of = study.make(quick=True)
    (tmp_path / "front_of_an_earlier_page.png").write_bytes(b"png")
    study.write(made_of.data[0], made_of.parts[0], tmp_path)
    assert "**Not run.**" in (tmp_path / "tables.md").read_text()
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_a_study_trains_each_cell_once_and_ends_with_a_page(tmp_path):
    """Two arms on a few drawn films: search, runs, the second test set, tables and plots."""
    study = e06.make(quick=True)
    data, part = study.data[0], study.parts[0]
    phantom = {**data.section["phantom"], "n_images": 600}
    section = {**data.section, "root": str(tmp_path / "phantoms"), "phantom": phantom}
    data = data._replace(
        section={**section, "public_size": 180},
        independent={"phantom.link_site": "independent", "phantom.n_images": 300},
    )
    arms = tuple(a._replace(settings=a.settings[:2]) for a in part.arms if a.name in ("erm", "jtt"))
    few = {"phantom": {"symmetric": False, "colours": 8, "patterns": 8}}
    part = part._replace(arms=arms, grid=Grid((PLAIN, 8.0), (0,), (1,)), images=few)
    study = study._replace(data=(data,), parts=(part,))
    driver.run(study, tmp_path / "out", progress=False)
    out = tmp_path / "out" / "phantom" / "heads"
    written = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*.parquet")}
    assert len(written) == 2 * 2 * 2
    driver.run(study, tmp_path / "out", progress=False)
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*.parquet")} == written
    summary = pd.read_csv(out / "summary.csv")
    assert set(summary["on"]) == {"correlated", "independent"}
    text = (out / "tables.md").read_text()
    assert "Table 4, another site" in text and "2 private runs on these people" in text
    for path in written:
        assert predictions_path(path.parent, "independent").is_file()
        leaks = pd.read_csv(path.parent / "leakage.csv")
        assert set(leaks["on"]) == {"correlated", "independent"}


def test_runs_share_what_was_opened_only_where_their_data_are_the_same(monkeypatch):
    """A fold, a drawing, a run before, or another second site is opened by itself."""
    opened = lambda *given, **options: types.SimpleNamespace(dataset=object())
    monkeypatch.setattr(arms_train, "_OPEN", {})
    monkeypatch.setattr(arms_train, "_changed", lambda run, fields: (None, frozenset()))
    monkeypatch.setattr(arms_train, "open_data", lambda *given: object())
    monkeypatch.setattr(arms_train, "open_site", opened)
    train = lambda before: types.SimpleNamespace(start_from=before)
    base = types.SimpleNamespace(data="fold 0", phantom="seed 0", train=train(None))
    other = [types.SimpleNamespace(**{**vars(base), **change})
             for change in ({"data": "fold 1"}, {"phantom": "seed 1"})]  # fmt: skip
    own = [arms_train._opened(settings) for settings in (base, *other)]
    child = types.SimpleNamespace(**{**vars(base), "train": train("run")})
    asked = [(base, {"a": 1}), (base, {"a": 2}), *((one, {"a": 1}) for one in (*other, child))]
    sites = [arms_train._opened_site(settings, None, fields) for settings, fields in asked]
    assert len({id(one) for one in [*own, *sites]}) == 3 + 5
    assert arms_train._opened(base) is own[0]
    assert arms_train._opened_site(base, None, {"a": 1}) is sites[0]


@pytest.mark.parametrize("epsilon", [PLAIN, 8.0])
@pytest.mark.parametrize("part", cost.PARTS)
@pytest.mark.parametrize("study", cost.STUDIES)
def test_the_cost_of_a_step_is_of_every_arm_that_trains_so(study, part, epsilon):
    names = [name for name, _ in cost.compared(study, part, epsilon)]
    left_out = {
        arm.name
        for arm in cost.ARMS[study]
        if part in arm.skip or (arm.private and epsilon != PLAIN)
    }
    assert names[0] == "erm" and len(set(names)) == len(names)
    assert {arm.name for arm in cost.ARMS[study]} - set(names) == left_out
    assert left_out <= {"lntl", "batch", "dro", "published", "groupnorms"}


def test_each_stage_of_a_run_weighs_by_its_share_of_the_steps():
    stages = cost.steps_of(dict(cost.compared("e06_fairread", "heads", 8.0))["fairread"])
    assert [round(stage.share, 2) for stage in stages] == [0.17, 0.03, 0.2, 0.6]


def test_stages_cost_the_mean_of_their_steps_over_the_step_of_erm(monkeypatch):
    """One of two stages takes a quarter of the run at twice ERM's time, the other the rest at 4."""
    stages = {"erm": [1.0], "two": [0.25, 0.75]}
    took = {"erm": 1.0, "0": 2.0, "1": 4.0}
    monkeypatch.setattr(cost, "compared", lambda *_: [(name, name) for name in stages])
    monkeypatch.setattr(cost, "steps_of", lambda name: [cost.Step(s, None) for s in stages[name]])
    monkeypatch.setattr(
        cost.stopwatch,
        "interleaved",
        lambda calls, **_: {name: np.full((3, 2), took[name]) for name in calls},
    )
    table = cost.measured("e06_fairread", "heads", 8.0, rounds=3)
    assert table[["study", "part", "epsilon", "arm"]].to_numpy().tolist() == [
        ["e06_fairread", "heads", 8.0, "two"]
    ]
    assert table.loc[0, ["ratio", "cpu_ratio"]].tolist() == [3.5, 3.5]


def test_a_ratio_is_within_a_round():
    taken = {"a": np.array([[1.0, 2.0], [10.0, 20.0]]), "b": np.array([[2.0, 6.0], [20.0, 60.0]])}
    table = cost.beside(taken, "a").set_index("name")
    assert table.loc["b", ["ratio", "low", "high", "cpu_ratio"]].tolist() == [2, 2, 2, 3]
    assert table.loc["a", "ratio"] == 1 and table.loc["b", "seconds"] == 11
