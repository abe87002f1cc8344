"""The command that probes a trained run: what it reads, writes and refuses."""

import dataclasses
import itertools
import json
import shutil
import types

import jax
import numpy as np
import pandas as pd
import pytest

from jaxfair import leakage, train
from jaxfair.config import load_config, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.errors import InputError
from jaxfair.methods.base import Method
from jaxfair.run.folder import RunFolder
from tests.small import CONFIG, small_config

PROBE = CONFIG.replace("rsna_fae", "derm_probe")


def probe_config(root, **overrides):
    """A linear head on fixed features: a second to train."""
    config = load_config(PROBE)
    fields = {
        "data.root": str(root / "phantoms"),
        "data.phantom.n_images": 700,
        "data.phantom.pixels": 48,
        "data.labels": ("cardiomegaly",),
        "data.groups": ("sex",),
        "method.patterns": 8,
        "method.colours": 4,
        "dp.enabled": False,
        "optim.average_from": 2,  # so that what is evaluated differs from the last parameters
        "train.steps": 4,
        "train.checkpoint_every": 4,
        "train.leakage": False,
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("leakage")


@pytest.fixture(scope="module")
def trained(root):
    train.run(probe_config(root), root / "run", num_devices=1, progress=False)
    return root / "run"


@pytest.fixture(scope="module")
def probed(trained, root):
    """The run, probed beside a copy of itself as its baseline."""
    shutil.copytree(trained, root / "erm")
    return leakage.run(trained, baseline=str(root / "erm"), progress=False)


def test_the_embedding_the_predictions_a_baseline_and_pixels_are_probed(probed, trained):
    rows = probed[["source", "run", "embedding", "probe"]].drop_duplicates()
    assert rows.to_numpy().tolist() == [
        ["model", "", "features", "linear"], ["model", "", "features", "mlp"],
        ["model", "", "score", "linear"],
        ["baseline", "erm", "features", "linear"], ["baseline", "erm", "features", "mlp"],
        ["pixels", "", "mean", "linear"],
        ["pixels", "", "grid", "linear"], ["pixels", "", "grid", "mlp"],
    ]  # fmt: skip
    same = probed[probed["embedding"] == "features"].set_index(["task", "label", "probe"])
    ours, theirs = (same[same["source"] == s]["auroc"] for s in ("model", "baseline"))
    pd.testing.assert_series_equal(ours, theirs)
    assert ours.notna().any()
    stored = pd.read_csv(RunFolder(trained).leakage)
    np.testing.assert_allclose(stored["auroc"], probed["auroc"])


def test_what_is_probed_is_what_predicts(trained, monkeypatch):
    """The averaged parameters, and each image's numbers in its own row."""
    given = []
    monkeypatch.setattr(leakage, "leakage_table", lambda *parts, **options: given.append(parts))
    monkeypatch.setattr(leakage.files, "write_table", lambda path, table: None)
    leakage.run(trained, progress=False)
    people, embeddings = given[0][:2]
    score = next(e.values for e in embeddings if e.name == "score")
    stored = pd.read_parquet(trained / "predictions.parquet").set_index(["image_id", "split"])
    rows = stored.loc[pd.MultiIndex.from_frame(people[["image_id", "split"]])]
    np.testing.assert_allclose(score[:, 0], rows["y_score"], atol=1e-6)


def test_the_first_is_the_models_own_embedding_whatever_the_alphabet_says(monkeypatch):
    embed = lambda params, frozen, batch: {"z": batch["x"]}
    method = Method("toy", ("ill",), None, None, lambda p, f, batch: {"ill": batch["x"][:, 0]})
    compiled = lambda method, params, frozen, batch, rows, progress: jax.device_get(
        jax.jit(method.score)(params, frozen, batch)
    )
    monkeypatch.setattr(leakage, "score_rows", compiled)
    stage = types.SimpleNamespace(method=method._replace(embed=embed), frozen={})
    found = leakage._embeddings((stage, {}), {"x": np.ones((4, 2))}, np.arange(4), False)
    assert [embedding.name for embedding in found] == ["z", "score"]
    assert found[0].control and not found[1].control


def test_neither_probes_nor_embeddings_are_written(probed, trained, root):
    before = {path.relative_to(root / "erm") for path in (root / "erm").rglob("*")}
    after = {path.relative_to(trained) for path in trained.rglob("*")}
    assert {path.name for path in after - before} == {"leakage.csv"}


def test_the_command_reports_again(probed, trained, capsys, monkeypatch):
    monkeypatch.setattr(leakage, "run", lambda workdir, **options: probed)
    trained_report = trained / "report.md"
    assert leakage.main(["jaxfair leakage", f"--workdir={trained}"]) == 0
    assert "leakage.csv, and in the report" in capsys.readouterr().out
    text = trained_report.read_text()
    assert "what the embedding tells about patients" in text
    assert json.loads((trained / "model.json").read_text())["embeds"] is True


def test_a_baseline_that_trained_on_a_probed_image_is_refused(trained, root, monkeypatch):
    rows = Dataset.rows
    lying = lambda self, split: rows(self, "test" if split == "train" else split)
    monkeypatch.setattr(Dataset, "rows", lying)
    with pytest.raises(
        InputError, match=r"trained on, or does not have, .* images that are probed"
    ):
        leakage.run(trained, baseline=str(root / "run"), progress=False)


def test_what_is_no_run_or_has_no_embedding_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no run folder: it has no config\.json"):
        leakage.run(tmp_path, progress=False)
    settings = settings_from_config(small_config(tmp_path, train__leakage=True))
    with pytest.raises(InputError, match="'fae' has no embedding of a whole image"):
        leakage.is_asked(settings)


@pytest.mark.parametrize(
    ("fields", "asked"),
    [({}, True), ({"data__groups": ()}, False), ({"train__leakage": False}, False)],
)
def test_training_ends_with_probes_where_attributes_are_named(tmp_path, fields, asked):
    config = probe_config(tmp_path, **{"train__leakage": None, **fields})
    assert leakage.is_asked(settings_from_config(config)) == asked


@pytest.mark.parametrize("name", ["chexpert_adversarial", "chexpert_fairread", "table_fairread"])
def test_what_claims_to_be_fair_is_probed_also_where_only_the_last_stage_has_an_embedding(name):
    settings = settings_from_config(load_config(CONFIG.replace("rsna_fae", name)))
    assert leakage.is_asked(settings)
    asked = dataclasses.replace(settings.train, leakage=True)
    assert leakage.is_asked(dataclasses.replace(settings, train=asked))


@pytest.mark.parametrize("asked", [True, False])
def test_training_probes_after_it_has_scored_and_before_it_reports(
    trained, root, monkeypatch, asked
):
    called = []
    note = lambda name: lambda *given, **options: called.append(name)
    for module in (train.evaluate, train.leakage, train.report):
        monkeypatch.setattr(module, "run", note(module.__name__))
    monkeypatch.setattr(leakage, "is_asked", lambda settings: asked)
    train.run(probe_config(root), trained, num_devices=1, progress=False)
    names = ["evaluate", "leakage", "report"] if asked else ["evaluate", "report"]
    assert called == [f"jaxfair.{name}" for name in names]


def test_pixel_means_are_those_of_a_loop():
    images = np.random.default_rng(0).random((2, 19, 5, 3)).astype(np.float32)
    found = leakage.pixel_means(images)
    np.testing.assert_allclose(found["mean"], images.mean(axis=(1, 2)), rtol=1e-5)
    edges = np.linspace(0, 19, 9).astype(int)
    slow = [
        [[image[a:b, x].mean(axis=0) for x in range(5)] for a, b in itertools.pairwise(edges)]
        for image in images
    ]
    np.testing.assert_allclose(found["grid"], np.reshape(slow, (2, -1)), rtol=1e-5)
    volume = np.ones((1, 16, 16, 16, 1), np.float32)
    assert leakage.pixel_means(volume)["grid"].shape == (1, 512)
