"""The study of the recipe's parts: its table, its joint cost, and that each arm is a config."""

import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from experiments.e03_dp_classifier import recipe
from jaxfair import files
from jaxfair.config import settings_from_config
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from tests.test_grid import EXPERIMENT, write_run

DERM = f"{EXPERIMENT.parents[1] / 'configs' / 'derm_resnet.py'}"


def test_each_arm_changes_one_thing_of_the_config():
    cell = recipe.grid.Cell(8.0, 0, 1)
    settings = {
        arm: settings_from_config(
            recipe.grid.config_of(cell, DERM, [f"--config.{change}" for change in changes])
        )
        for arm, changes in recipe.ARMS.items()
    }
    as_it_was = settings.pop("as it was")
    for arm, found in settings.items():
        sections = vars(found)
        differs = [name for name in sections if sections[name] != vars(as_it_was)[name]]
        assert len(differs) == 1 or arm == "head refit", (arm, differs)
        assert found.train.steps == 120


def test_the_table_has_every_arm_and_what_all_of_them_cost(tmp_path):
    for arm in ("as it was", "4 views"):
        for seed in (1, 2):
            write_run(tmp_path / files.slug(arm), 8.0, 0, seed)
    recipe.write_table(tmp_path)
    rows = pd.read_csv(tmp_path / "recipe.csv")
    assert rows["arm"].tolist() == ["as it was"] * 2 + ["4 views"] * 2
    folder = tmp_path / files.slug("4 views") / "runs" / "epsilon-8_fold-0_seed-2"
    table = pd.read_parquet(folder / "predictions.parquet")
    test = table[table["split"] == "test"]
    truth = roc_auc_score(test["y_true"], test["y_score"])
    assert rows["test"].iloc[-1] == pytest.approx(truth, abs=1e-4)
    text = (tmp_path / "recipe.md").read_text()
    together = accounting.epsilon([Event(1.0, 5.0, 4 * 5)], 1e-5)  # four made runs of five steps
    assert "| 4 views | 2 |" in text and f"| 8 | 4 | 8 | {together:.3g} |" in text
