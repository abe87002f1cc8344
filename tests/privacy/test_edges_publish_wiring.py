"""Sharp edges of how a release is put together; `mutations/faults_publish_wiring.py` has them."""

import json

import numpy as np
import pandas as pd
import pytest

from jaxfair.privacy.accounting import Event, epsilon
from jaxfair.privacy.ledger import BudgetExceeded, read_entries
from jaxfair.privacy.publication import LEDGER, check_release
from jaxfair.privacy.queries import Query, joint
from jaxfair.privacy.strategy import covariance, strategy
from jaxfair.publish.asking import Asked
from jaxfair.publish.recomputed import check_tables
from jaxfair.publish.release import run
from jaxfair.run.folder import RunFolder
from tests.privacy.published import evaluated, predictions

TASKS = ("finding", "rare")
SEX = Asked(1.0, attributes=("sex",), bins=4, budget=9.0)
MANY = Asked(1.0, attributes=("sex x age_group", "sex"), bins=16, budget=9.0)


def released(folder, rows, asked=SEX, **how):
    """(statement.json, histograms.csv, tables.csv) of a run that declares two labels."""
    made = run(RunFolder(evaluated(folder, rows, TASKS)), asked, **how)
    tables = [pd.read_csv(made / f"{name}.csv") for name in ("histograms", "tables")]
    return json.loads((made / "statement.json").read_text()), *tables


def asked_at(told, part):
    return [
        Query(q["name"], q["sensitivity"], q["noise_multiplier"]) for q in told["queries"][part]
    ]


def test_edge_360_the_labels_that_are_paid_for_are_those_that_the_config_declares(tmp_path):
    one = predictions(60)
    other = pd.concat([one, one[:1].assign(task="rare")], ignore_index=True)
    told = [released(tmp_path / str(n), rows)[0] for n, rows in enumerate((one, other))]
    assert told[0]["queries"] == told[1]["queries"] and len(told[0]["queries"]["tests"]) == 2


def test_edge_361_the_epsilon_that_is_asked_is_the_one_that_is_paid(tmp_path):
    released(tmp_path, predictions(60))
    (entry,), _ = read_entries(tmp_path / LEDGER)
    assert 0.98 < epsilon([entry.event], 1e-5) <= 1.0 + 1e-9


def test_edge_362_the_payment_is_on_disk(tmp_path):
    released(tmp_path, predictions(60))
    assert len(read_entries(tmp_path / LEDGER)[0]) == 1


def test_edge_363_all_labels_and_attributes_together_cost_what_was_asked(tmp_path):
    told, counts, _ = released(tmp_path, predictions(60), MANY)
    assert len(asked_at(told, "tests")) == counts.groupby(["task", "attribute"]).ngroups == 4
    for part in ("validation", "tests"):
        assert epsilon([Event(1.0, joint(asked_at(told, part)), 1)], 1e-5) <= 1.0 + 1e-9


def test_edge_364_the_counts_of_the_folder_have_the_noise_that_was_paid_for(tmp_path):
    """Of six patients nearly all of 1,000 cells are empty; the file says how to undo the sums."""
    told, counts, _ = released(tmp_path, predictions(6), MANY)
    sd = asked_at(told, "tests")[0].noise_stddev
    scaled, products, told_of = [], 0.0, 0.0
    for _, row in counts.groupby(["task", "attribute", "group", "label"]):
        scaled += list(row["patients"] @ strategy(len(row)).T / sd)
        products += (row["patients"] * row["patients"].shift(-1)).sum()
        told_of += row["noise_next"].sum()
    assert np.std(scaled) == pytest.approx(1, rel=0.1)
    assert np.std(counts["patients"] / counts["noise_sd"]) == pytest.approx(1, rel=0.1)
    assert told_of < 0 and products / told_of == pytest.approx(1, abs=0.4)


def test_edge_365_the_noise_that_the_tables_tell_of_is_that_of_the_test_patients(tmp_path):
    told, counts, table = released(tmp_path, predictions(60))
    sd = asked_at(told, "tests")[0].noise_stddev
    bins = counts[counts["task"] == "finding"]["bin"].nunique()  # fewer where noise joins edges
    women = table[(table["group"] == "F") & (table["task"] == "finding")]["noise_sd_patients"]
    assert women.iloc[0] == pytest.approx(sd * (2 * covariance(bins).sum()) ** 0.5, abs=0.06)


def test_edge_366_a_patient_with_thousands_of_images_counts_as_one(tmp_path):
    rows = predictions(5000).assign(patient_id="one", split="test")
    _, counts, _ = released(tmp_path, rows)
    assert abs(counts["patients"].sum()) < 1000


def test_edge_367_groups_below_the_minimum_are_in_no_table(tmp_path):
    asked = Asked(1.0, attributes=("sex",), bins=4, minimum=1e6)
    _, _, table = released(tmp_path, predictions(900), asked)
    assert table["value"].isna().all() and table["patients"].isna().all()


def test_edge_368_the_statement_is_of_the_noise_that_was_paid_for(tmp_path):
    told, _, _ = released(tmp_path, predictions(60))
    (entry,), _ = read_entries(tmp_path / LEDGER)
    assert told["noise_multiplier"] == entry.noise_multiplier
    assert check_release(tmp_path / "release") == []


def test_edge_369_every_release_has_a_secret_of_its_own(tmp_path):
    rows = predictions(60)
    one, two = (released(tmp_path / name, rows)[1]["patients"] for name in "ab")
    assert not np.isclose(one[:20], two[:20]).any()  # noise may join edges of bins, and leave fewer


def test_edge_370_the_ledger_that_is_named_is_the_one_that_pays(tmp_path):
    shared = tmp_path / "shared.jsonl"
    for name in "ab":
        released(tmp_path / name, predictions(60), ledger=shared)
    assert len(read_entries(shared)[0]) == 2


def test_edge_371_the_budget_ends_what_is_released_of_these_people(tmp_path):
    asked = Asked(1.0, attributes=("sex",), budget=1.0)
    released(tmp_path, predictions(60), asked)
    with pytest.raises(BudgetExceeded):
        released(tmp_path, predictions(60), asked, out=tmp_path / "again")


def test_edge_372_delta_follows_from_the_declared_size(tmp_path):
    asked = Asked(1.0, attributes=("sex",), public_size=5_000_000)
    told, _, _ = released(tmp_path, predictions(60), asked)
    assert told["delta"] == pytest.approx(0.1 / 5_000_000)


def test_edge_440_the_statement_says_what_another_release_costs(tmp_path):
    told, _, _ = released(tmp_path, predictions(60))
    event = Event(1.0, told["noise_multiplier"], 1)
    assert told["epsilon_after_another"] == pytest.approx(epsilon([event, event], 1e-5), rel=1e-9)
    assert told["epsilon_after_another"] > 1.3 * told["epsilon"]


def test_edge_441_a_cell_that_was_changed_is_found_whatever_its_digest(tmp_path):
    _, _, table = released(tmp_path, predictions(900))
    assert check_tables(tmp_path / "release") == []
    place = table["value"].first_valid_index()
    table.loc[place, "value"] += 0.001
    table.to_csv(tmp_path / "release" / "tables.csv", index=False)
    assert "tables.csv: value of auroc" in "".join(check_tables(tmp_path / "release"))
