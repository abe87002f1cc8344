"""The study of extractors: what its table says of the runs that are there."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.e01_rsna_fae import extractors
from jaxfair.errors import InputError


def write(out, name, scores):
    folder = out / "runs" / name
    folder.mkdir(parents=True)
    rows = {"split": ["test"] * 4 + ["validation"] * 2, "y_true": [0.0, 0, 1, 1, 0, 1]}
    pd.DataFrame(rows | {"y_score": [*scores, 9.0, 0.0]}).to_parquet(folder / "predictions.parquet")


def test_levels_are_of_the_test_films_of_each_run(tmp_path):
    write(tmp_path, "resnet18_epsilon-8_seed-1", [0.1, 0.6, 0.5, 0.9])
    write(tmp_path, "lite0_epsilon-inf_seed-12", [0.1, 0.2, 0.5, 0.9])
    found = extractors.levels(tmp_path).set_index("extractor")
    assert found.loc["resnet18"].tolist() == [8.0, 1, 0.75]
    assert found.loc["lite0"].tolist() == [np.inf, 12, 1.0]


def test_a_folder_without_runs_is_said_to_be_one(tmp_path):
    with pytest.raises(InputError, match="no finished run"):
        extractors.levels(tmp_path)


def test_the_gain_is_over_the_random_extractor_of_the_same_seed_and_epsilon():
    values = {("resnet18", 8.0): [0.70, 0.72, 0.71], ("lite0", 8.0): [0.80, 0.78, 0.84],
              ("lite0", np.inf): [0.9], ("resnet18", np.inf): [0.5]}  # fmt: skip
    rows = [(*key, seed, v) for key, part in values.items() for seed, v in enumerate(part, 1)]
    table = pd.DataFrame(rows, columns=["extractor", "epsilon", "seed", "auroc"])
    found = extractors.summary(table).set_index(["extractor", "epsilon"])
    gains = np.array([0.10, 0.06, 0.13])
    row = found.loc["lite0", 8.0]
    assert row["gain"] == pytest.approx(gains.mean()) and row["seeds"] == 3
    low, high = scipy.stats.t.interval(0.95, 2, gains.mean(), scipy.stats.sem(gains))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high))
    assert (row["lowest"], row["highest"]) == (0.78, 0.84)
    alone = found.loc["lite0", np.inf]
    assert alone["gain"] == pytest.approx(0.4) and np.isnan(alone["ci_low"])
    assert np.isnan(found.loc["resnet18", 8.0]["gain"])


def test_a_cell_is_the_phantom_with_its_extractor_seed_and_epsilon(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(extractors, "run_cell", lambda config, folder, _: seen.append(config))
    for epsilon in (8.0, np.inf):
        extractors.train(extractors.Cell("lite0", epsilon, 3), tmp_path, ["--config.train.steps=7"])
    private, plain = seen
    assert private.dp.enabled and private.dp.epsilon == 8.0 and not plain.dp.enabled
    for config in seen:
        assert (config.extractor.name, config.extractor.seed, config.seed) == ("lite0", 3, 3)
        assert config.train.steps == 7 and config.data.phantom.seed == 0


def test_a_wrong_number_is_said_and_nothing_is_trained(tmp_path, capsys):
    given = ["--out", str(tmp_path), "--results", str(tmp_path), "--seeds", "one"]
    assert extractors.main(given) == 2
    assert "one" in capsys.readouterr().err and not list(tmp_path.iterdir())
