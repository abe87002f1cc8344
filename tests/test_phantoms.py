"""The stand-in of every config trains, evaluates and reports: small ones here, whole ones slow."""

import json
import pathlib

import pandas as pd
import pytest

from jaxfair import train
from jaxfair.config import load_config, settings_from_config
from jaxfair.privacy.verify import verify_run

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs"
NAMES = [path.stem for path in sorted(FOLDER.glob("*.py")) if ":phantom" in path.read_text()]
FILMS = {
    "data.image_size": 32,
    "data.public_size": 40,
    "data.phantom.n_images": 90,
    "data.phantom.pixels": 48,
    "dp.microbatch": 8,
    "train.steps": 2,
    "train.expected_batch_size": 8,
    "train.checkpoint_every": 1,
}
SMALL = {
    "derm_probe": FILMS,
    "table_fae": FILMS
    | {"data.image_size": 64, "method.hidden_dims": (4, 8), "data.phantom.n_images": 200},
    "table_resnet": FILMS | {"method.last_layer": True},  # no gradient of the network to compile
}


def check(name, tmp_path, overrides):
    """Trains the stand-in of a config and looks at what it leaves."""
    config = load_config(f"{FOLDER / name}.py:phantom")
    with config.unlocked():
        config.data.root = str(tmp_path / "phantoms")
        config.update_from_flattened_dict(overrides)
    run = train.run(config, tmp_path / "run", num_devices=1, progress=False)
    settings = settings_from_config(config)
    predictions = pd.read_parquet(run.predictions)
    assert set(predictions["task"]) == set(settings.data.tasks)
    assert set(predictions["split"]) == {"validation", "test"}
    assert predictions.groupby("patient_id")["split"].nunique().max() == 1
    table = pd.read_csv(run.fairness)
    overall = table[(table["attribute"] == "overall") & (table["metric"] == "auroc")]
    assert set(overall["task"]) == set(settings.data.tasks)
    assert {*settings.data.attributes, "sex x age_group"} < set(table["attribute"])
    claim = json.loads(run.privacy.read_text())
    assert (claim["data"], claim["unit"]) == ("phantom", "patient")
    assert 0 < claim["epsilon"] <= settings.dp.epsilon
    assert verify_run(run.path) == []
    assert "PHANTOM" in run.report.read_text()


@pytest.mark.parametrize(
    "name", ["derm_probe", "table_resnet", pytest.param("table_fae", marks=pytest.mark.slow)]
)
def test_a_small_stand_in_is_trained_and_reported(name, tmp_path):
    check(name, tmp_path, SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_stand_in_is_trained_and_reported(name, tmp_path):
    check(name, tmp_path, {})
