"""What every source must keep, tried on its phantom."""

import json

import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds

from jaxfair.data import dataset, store
from jaxfair.data.config import SOURCES
from jaxfair.errors import InputError

TABLE = {"file": "table.csv", "image": "image", "patient": "patient", "sex": "sex", "age": "age"}
FIELDS = {
    "table": {"table": TABLE | {"view": "view", "labels": ("cardiomegaly", "congestion")}},
    "volumes": {"table": TABLE | {"labels": ("lesion",)}, "volume": (8, 16, 16)},
}
PHANTOM = {"n_images": 40, "pixels": 32, "slices": 8}


@pytest.fixture(scope="module", params=SOURCES)
def made(request, tmp_path_factory):
    """The dataset of a source's phantom, split at random."""
    return dataset.open_dataset(
        config(request.param, tmp_path_factory.getbasetemp()), progress=False
    )


def config(source, home, **fields):
    fields = {"image_size": 16, "split": "random", **FIELDS.get(source, {})} | fields
    return dataset.DataConfig(source=source, root=str(home / "ph"), phantom=PHANTOM, **fields)


def again(made, home, **fields):
    return config(made.card["dataset"]["source"], home, prepared=str(made.folder), **fields)


def test_a_source_says_what_it_is(made):
    spec = SOURCES[made.card["dataset"]["source"]].SPEC
    assert {"name", "title", "population", "tasks", "attributes", "licence", "where", "needs",
            "optional", "ndim", "channels", "config"} <= set(spec)  # fmt: skip
    assert "PHANTOM" in made.card["dataset"]["title"] and made.population == "phantom"
    assert made.unit == "patient" and set(spec["attributes"]) <= set(made.manifest.columns)


def test_no_patient_crosses_any_split(made, tmp_path_factory):
    rules = ["random", "folds"] + (["source"] if "source_split" in made.manifest else [])
    for rule in rules:
        other = again(made, tmp_path_factory.getbasetemp(), split=rule)
        table = dataset.open_dataset(other, progress=False).manifest
        placed = table[table["split"] != ""]
        assert (placed.groupby("patient_id")["split"].nunique() == 1).all()
        assert {"train", "test"} <= set(placed["split"])


def test_disease_plays_no_role_in_the_random_split(made):
    labels = made.manifest[[f"label_{task}" for task in made.tasks]]
    assert (labels.loc[made.manifest["split"] == "train"] == 1).any(axis=None)


def test_the_card_and_the_list_of_rejections_have_one_form(made):
    assert {"images", "patients", "counts", "missing", "rejected", "headers", "found", "dataset",
            "copies_under_two_patients", "split_rule"} <= set(made.card)  # fmt: skip
    assert sum(cell["images"] for cell in made.card["counts"]) == len(made)
    rejected = pd.read_csv(made.folder / "rejected.csv")
    assert list(rejected.columns) == ["image_id", "file", "reason"]
    assert made.card["rejected"]["total"] == len(rejected)
    json.dumps(made.card, allow_nan=False)


def test_rows_of_labels_and_images_are_those_of_the_manifest(made):
    source = tfds.data_source(store.NAME, data_dir=made.folder, split="all")
    assert [r["image_id"].decode() for r in source] == made.manifest["image_id"].tolist()
    row = len(made) - 1
    assert np.array_equal(source[row]["image"], made.pixels[row])
    example = {name: read([0, row]) for name, read in made.fields.items()}
    for name, struct in made.spec.items():
        assert example[name].shape == (2, *struct.shape) and example[name].dtype == struct.dtype


def test_a_second_opening_decodes_nothing(made, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(dataset.build, "prepare_folder", None)
    other = again(made, tmp_path_factory.getbasetemp())
    assert dataset.open_dataset(other, progress=False).digest == made.digest


@pytest.mark.parametrize("source", SOURCES)
def test_a_folder_that_is_not_there_says_what_to_get_and_the_phantom_command(source, tmp_path):
    fields = {"root": str(tmp_path / "nowhere"), **FIELDS.get(source, {})}
    missing = dataset.DataConfig(source=source, **fields)
    with pytest.raises(InputError) as caught:
        dataset.open_dataset(missing, progress=False)
    spec, sentence = SOURCES[source].SPEC, str(caught.value)
    assert "does not exist" in sentence and spec["where"] in sentence
    assert f"{spec['config']}:phantom" in sentence and "\n" not in sentence
