"""A new source, Method, mitigation and metric: a file each, a line each, the package untouched.

The files are written into a temporary folder and named there in the tables, as a config file of
one's own may do; then the real command trains, evaluates and reports with all four at once.
"""

import json

import numpy as np
import pandas as pd
import pytest

from jaxfair import train
from jaxfair.config import load_config, settings_from_config
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.errors import InputError
from jaxfair.fairness.catalog import METRICS
from jaxfair.methods.catalog import METHODS
from jaxfair.methods.mitigations.catalog import MITIGATIONS
from jaxfair.privacy.verify import verify_run
from tests.data.test_every_source import TOY as TOY_SOURCE

IMAGES = 120

TOY_METHOD = '''
import dataclasses

import jax
import jax.numpy as jnp

from jaxfair.methods.base import Method


@dataclasses.dataclass(frozen=True)
class BrightnessConfig:
    """What the toy is.

    Attributes:
      labels: the tasks.
      scale: of the brightness.
    """

    labels: tuple = ()
    scale: float = 1.0


def make_brightness(config):
    def logit(params, image):
        return params["slope"] * config.scale * jnp.mean(image, axis=(-3, -2, -1)) + params["shift"]

    def init(key, spec):
        return {"slope": jnp.zeros(()), "shift": jnp.zeros(())}, {}

    def loss(params, frozen, example, key):
        sign = 2 * example["label"][0] - 1
        return -jax.nn.log_sigmoid(sign * logit(params, example["image"])), {}

    def score(params, frozen, batch):
        return {config.labels[0]: jax.nn.sigmoid(logit(params, batch["image"]))}

    return Method("brightness", config.labels, init, loss, score)


def describe(config):
    return {"note": "It knows nothing but brightness."}
'''

TOY_MITIGATION = '''
import dataclasses

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class TwiceConfig:
    """Attributes:
    factor: public constant.
    """

    factor: float = 2.0


def count_women_more(config, method):
    """The factor is public and each example's own: one unit still moves the sum by C at most."""

    def loss(params, frozen, example, key):
        value, aux = method.loss(params, frozen, example, key)
        return value * jnp.where(example["group"][0] == 0, config.factor, 1.0), aux

    return method._replace(loss=loss)
'''

TOY_CONFIG = """
from ml_collections import ConfigDict

import toy_method
import toy_mitigation
import toy_source
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.fairness.catalog import METRICS, Metric
from jaxfair.methods.catalog import METHODS, Entry
from jaxfair.methods.mitigations.catalog import MITIGATIONS, Mitigation

METHODS["brightness"] = Entry(
    toy_method.BrightnessConfig, toy_method.make_brightness, toy_method.describe
)
MITIGATIONS["women"] = Mitigation(
    toy_mitigation.TwiceConfig, toy_mitigation.count_women_more, "fits", "the factor is public"
)
SOURCES["toy"] = toy_source
METRICS["loudness"] = Metric(
    lambda y, s: float(s.mean()), "scores", "Loudness", "mean score of the group"
)


def get_config(arg=""):
    config = ConfigDict({"name": "toy", "seed": 1})
    config.data = ConfigDict({
        "source": "toy", "root": "", "image_size": 16, "public_size": 90, "groups": ("sex",),
    })
    config.method = ConfigDict({"name": "brightness", "scale": 3.0})
    config.mitigation = ConfigDict({"name": "women", "factor": 2.0})
    config.optim = ConfigDict({"learning_rate": 0.5})
    config.dp = ConfigDict({"epsilon": 8.0, "microbatch": 8})
    config.train = ConfigDict({"steps": 6, "expected_batch_size": 16, "checkpoint_every": 3})
    return config
"""


def write_toys(root):
    """Bright images are broken, in the layout that the toy source reads."""
    root.mkdir()
    rng = np.random.default_rng(0)
    names, broken = [f"t{i}" for i in range(IMAGES)], np.arange(IMAGES) % 2
    for name, label in zip(names, broken):
        np.save(root / f"{name}.npy", rng.random((20, 20)) * (0.6 + 0.4 * label))
    rows = pd.DataFrame({"image_id": names, "patient_id": names, "label_broken": broken})
    rows["path"] = rows["image_id"] + ".npy"
    rows["sex_text"] = np.where(np.arange(IMAGES) // 2 % 2, "F", "M")
    rows.assign(age_text="40", view_text="PA").to_csv(root / "toys.csv", index=False)


@pytest.fixture
def toys(tmp_path, monkeypatch):
    for name, text in (
        ("toy_source", TOY_SOURCE), ("toy_method", TOY_METHOD), ("toy_mitigation", TOY_MITIGATION),
        ("toy_config", TOY_CONFIG),
    ):  # fmt: skip
        (tmp_path / f"{name}.py").write_text(text)
    for table in (SOURCES, METHODS, MITIGATIONS, METRICS):
        for name in ("toy", "brightness", "women", "loudness"):
            monkeypatch.delitem(table, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    write_toys(tmp_path / "toys")
    yield tmp_path
    for table in (SOURCES, METHODS, MITIGATIONS, METRICS):
        for name in ("toy", "brightness", "women", "loudness"):
            table.pop(name, None)


def test_a_newcomer_of_each_kind_is_a_file_and_a_line(toys, capsys):
    line = ["train", "--config", str(toys / "toy_config.py"), f"--config.data.root={toys / 'toys'}"]
    status = train.main([*line, f"--workdir={toys / 'run'}", "--devices=1"])
    assert status == 0, capsys.readouterr().err
    assert verify_run(toys / "run") == []
    table = pd.read_csv(toys / "run" / "fairness.csv")
    loud = table[(table["metric"] == "loudness") & (table["split"] == "test")]
    assert {"all", "F", "M"} <= set(loud["group"]) and loud["value"].notna().any()
    scores = pd.read_parquet(toys / "run" / "predictions.parquet")
    assert set(scores["task"]) == {"broken"} and scores["y_score"].nunique() > 1
    told = json.loads((toys / "run" / "privacy.json").read_text())
    assert told["population"] == "toys" and told["grade"] == "private"
    assert "It knows nothing but brightness." in (toys / "run" / "report.md").read_text()


def test_the_tables_name_newcomers_where_a_name_is_wrong(toys):
    config = load_config(str(toys / "toy_config.py"))
    for section, names in (("method", "brightness"), ("mitigation", "women")):
        broken = config.copy_and_resolve_references()
        broken[section].name = "nothing"
        with pytest.raises(InputError, match=f"known {section}s are .*{names}"):
            settings_from_config(broken)
