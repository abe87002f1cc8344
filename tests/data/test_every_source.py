"""What every source must keep, tried on its phantom."""

import importlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds

from jaxfair import prepare
from jaxfair.data import dataset, store
from jaxfair.data.config import make_data_config
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.errors import InputError
from jaxfair.phantom.config import PhantomConfig
from jaxfair.phantom.write import ready

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
    data = make_data_config(source=source, root=str(home / "ph"), **fields)
    return ready(PhantomConfig(**PHANTOM), data, progress=False)


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
            "copies", "split_rule"} <= set(made.card)  # fmt: skip
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


def test_blanks_around_cells_and_columns_change_nobody(made, tmp_path_factory, tmp_path):
    """Ids are texts, stripped, whatever table they stand in: "p0 " is no second patient."""
    home, source = tmp_path_factory.getbasetemp(), made.card["dataset"]["source"]
    data = again(made, home)
    root = tmp_path / "blanks"
    shutil.copytree(data.root, root)
    for path in root.rglob("*.csv*"):
        packed = "gzip" if path.suffix == ".gz" else None
        table = pd.read_csv(path, dtype=str, keep_default_na=False, compression=packed)
        padded = table.map(lambda cell: f" {cell}\t").rename(columns=lambda name: f" {name} ")
        padded.to_csv(path, index=False, compression=packed)
    before, after = (SOURCES[source].read_table(place, data.options) for place in (data.root, root))
    kept = [name for name in before.rows if name != "path"]
    pd.testing.assert_frame_equal(before.rows[kept], after.rows[kept])
    pd.testing.assert_frame_equal(before.rejected, after.rejected)


def test_a_second_opening_decodes_nothing(made, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(dataset.build, "prepare_folder", None)
    other = again(made, tmp_path_factory.getbasetemp())
    assert dataset.open_dataset(other, progress=False).digest == made.digest


@pytest.mark.parametrize("source", SOURCES)
def test_a_folder_that_is_not_there_says_what_to_get_and_the_phantom_command(source, tmp_path):
    fields = {"root": str(tmp_path / "nowhere"), **FIELDS.get(source, {})}
    missing = make_data_config(source=source, **fields)
    with pytest.raises(InputError) as caught:
        dataset.open_dataset(missing, progress=False)
    spec, sentence = SOURCES[source].SPEC, str(caught.value)
    assert "does not exist" in sentence and spec["where"] in sentence
    assert f"{spec['config']}:phantom" in sentence and "\n" not in sentence


TOY = """
import pathlib

import pandas as pd

from jaxfair.data import pixels
from jaxfair.data.sources.base import Options, SourceTable, rejected, require, sizes_in

SPEC = {"name": "toy", "title": "Toys", "population": "toys", "tasks": ("broken",),
        "attributes": ("sex", "age_group", "view"), "licence": "free", "where": "https://toys",
        "needs": ("toys.csv",), "optional": (), "ndim": 2, "channels": (1,),
        "patient_hint": "all of them are known", "config": "configs/toy.py"}
HOW_TO_GET = "Wanted is toys.csv. Get it from https://toys."
OPTIONS = Options
read_pixels = pixels.read_square


def read_table(root, options):
    require(pathlib.Path(root), SPEC["needs"], HOW_TO_GET)
    rows = pd.read_csv(pathlib.Path(root) / "toys.csv", dtype=str)
    rows["path"] = str(root) + "/" + rows["path"]
    rows["label_broken"] = rows["label_broken"].astype(float)
    return SourceTable(rows, rejected([]), "patient", {})


def inventory(root, options):
    return [root / "toys.csv"], sizes_in(root)


def label(rows, options):
    return rows
"""


def test_a_new_source_is_one_file_and_one_line(tmp_path, monkeypatch, capsys):
    """It is prepared by the command and opened, and nothing of the package was touched."""
    (tmp_path / "toy_source.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SOURCES, "toy", importlib.import_module("toy_source"))
    root = tmp_path / "toys"
    root.mkdir()
    names = [f"t{i}" for i in range(12)]
    for i, name in enumerate(names):
        np.save(root / f"{name}.npy", np.random.default_rng(i).random((20, 20)))
    rows = pd.DataFrame({"image_id": names, "patient_id": names, "label_broken": [0, 1] * 6})
    rows["path"] = rows["image_id"] + ".npy"
    rows.assign(sex_text="F", age_text="7", view_text="").to_csv(root / "toys.csv", index=False)
    line = ["--source=toy", f"--root={root}", f"--out={tmp_path / 'set'}", "--image_size=16"]
    assert prepare.main(["prepare", *line, "--noprogress"]) == 0
    assert capsys.readouterr().out.startswith("toy: 12 images of 12 units (patients known)")
    config = make_data_config(
        source="toy", root=str(root), prepared=str(tmp_path / "set"), image_size=16, groups=("sex",)
    )
    made = dataset.open_dataset(config, progress=False)
    assert made.tasks == ("broken",) and made.population == "toys" and made.data == "real"
    assert made.fields["label"](np.arange(4)).ravel().tolist() == [0, 1, 0, 1]
    assert made.fields["group"](np.arange(4)).ravel().tolist() == [0, 0, 0, 0]
    with pytest.raises(InputError, match=r"lacks toys.csv. Wanted is toys.csv"):
        dataset.open_dataset(make_data_config(source="toy", root=str(tmp_path)), progress=False)
