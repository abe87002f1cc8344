"""How a model file, its thresholds and its images are joined: each score and word by its own.

The way of most: a film is scored by the command, and what it leaves is compared with the model's
numbers by hand.
"""

import contextlib
import io
import json
import pathlib
import types
from unittest import mock

import numpy as np
import pandas as pd
from PIL import Image

from jaxfair.errors import InputError
from jaxfair.model_file.container import packed
from jaxfair.model_file.model import load_model
from jaxfair.predict import __main__ as command
from jaxfair.predict import judged, scoring
from jaxfair.schema import CAUTION
from tests.model_file.hostile import HOSTILE
from tests.model_file.made import EVALUATION, PARAMS, made_parts

LOW, OWN, OTHER = -9.0, 9.0, 4.0
"""Pooled, of F and of M: all far from every score, so that each decides otherwise."""
THRESHOLDS = {"youden": LOW, "min_gap": LOW,
              "groups": {"sex": {"F": {"youden": OWN}, "M": {"youden": OTHER}}}}  # fmt: skip
SEXES = {"a": "F", "b": "M", "c": "unknown"}


def predicted(tmp_path: pathlib.Path, *flags: str) -> pathlib.Path:
    """Scores three films of a table by the command; returns the folder."""
    told = EVALUATION | {"thresholds": {"mass": THRESHOLDS}}
    parts = made_parts() | {"evaluation.json": json.dumps(told).encode()}
    (tmp_path / "m.jaxfair").write_bytes(packed(parts))
    for i, name in enumerate(SEXES):
        Image.fromarray(film(i)).save(tmp_path / f"{name}.png")
    rows = [f"{name},{name}.png,{sex},PA" for name, sex in SEXES.items()]
    (tmp_path / "t.csv").write_text("\n".join(["id,path,sex,view", *rows, ""]))
    line = [str(tmp_path / "m.jaxfair"), str(tmp_path / "t.csv"), f"--out={tmp_path / 'out'}"]
    assert status_of(*line, *flags) == 0, "The command did not end well."
    return tmp_path / "out"


def status_of(*line: str) -> int:
    """The command's exit status; it reads files in this process, which is soon."""
    here = mock.patch.object(scoring, "read_files", lambda read, jobs, how, **more: map(read, jobs))
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with here, quiet[0], quiet[1]:
        return command.main(["predict", *line])


def film(i: int) -> np.ndarray:
    """(16, 8) whose middle square, 8 x 8, is all that the model reads."""
    return np.random.default_rng(i).integers(0, 256, (16, 8), dtype=np.uint8)


def rows_of(out: pathlib.Path) -> pd.DataFrame:
    return pd.read_parquet(out / "predictions.parquet").set_index("image_id")


def test_edge_340_each_case_is_judged_by_the_threshold_of_its_own_group(tmp_path):
    rows = rows_of(predicted(tmp_path))
    assert rows["threshold"].to_dict() == {"a": OWN, "b": OTHER, "c": LOW}


def test_edge_341_whose_threshold_decided_is_said_as_it_is(tmp_path):
    rows = rows_of(predicted(tmp_path))
    assert rows["threshold_of"].to_dict() == {"a": "sex: F", "b": "sex: M", "c": "pooled"}
    assert rows["positive"].to_dict() == {"a": False, "b": False, "c": True}


def test_edge_342_an_image_is_prepared_as_in_the_training(tmp_path):
    """Cut to its middle square, scaled to [0, 1], weighted: by hand, from the file's pixels."""
    rows = rows_of(predicted(tmp_path))
    for i, (name, shift) in enumerate({"a": 0.25, "b": 0.5, "c": 0.0}.items()):
        square = film(i)[4:12].astype(np.float64) / 255
        by_hand = square.ravel() @ np.asarray(PARAMS["weight"], np.float64) / 8 + shift
        assert abs(rows.loc[name, "score"] - by_hand) < 1e-4


def test_edge_343_each_label_is_judged_by_its_own_threshold():
    told = {"heart": {"youden": 1.0, "groups": {}}, "mass": {"youden": 3.0, "groups": {}}}
    model = types.SimpleNamespace(groups={}, thresholds=told)
    found = [judged.decided(model, task, 2.0, {}, rule="youden") for task in told]
    assert [(one.threshold, one.positive) for one in found] == [(1.0, True), (3.0, False)]


def test_edge_344_a_map_is_of_its_own_case(tmp_path):
    """The model's map is the image itself, so both halves of a picture agree."""
    out = predicted(tmp_path)
    for i, (_, row) in enumerate(rows_of(out).iterrows()):
        with Image.open(out / row["map"]) as picture:
            both = np.asarray(picture)
        assert np.array_equal(both[:, :8], film(i)[4:12])
        heat, levels = both[:, 8:].astype(float), both[:, :8].astype(float)
        high = levels > np.median(levels)
        assert (heat[~high] == 0).all() and np.corrcoef(heat[high], levels[high])[0, 1] > 0.99


def test_edge_345_another_digest_than_the_one_asked_for_is_refused(tmp_path):
    predicted(tmp_path)
    line = [str(tmp_path / "m.jaxfair"), str(tmp_path / "t.csv"), f"--out={tmp_path / 'again'}"]
    status = status_of(*line, "--sha256", "0" * 64)
    assert status == 2 and not (tmp_path / "again").exists()


def test_edge_346_every_output_says_that_it_is_not_for_diagnosis(tmp_path):
    out = predicted(tmp_path)
    for name in ("predictions.csv", "predictions.json", "rejected.csv", "index.html"):
        lines = (out / name).read_text()
        assert CAUTION in lines or (name == "rejected.csv" and lines.count("\n") == 1), name
    assert (pd.read_parquet(out / "predictions.parquet")["notice"] == CAUTION).all()


def test_edge_347_a_part_is_what_its_digest_says(tmp_path):
    (tmp_path / "m.jaxfair").write_bytes(HOSTILE["a changed byte in card.md"][1]())
    loaded = False
    with contextlib.suppress(InputError):
        load_model(tmp_path / "m.jaxfair")
        loaded = True
    assert not loaded


def test_edge_348_a_case_is_scored_as_of_its_own_group(tmp_path):
    """The score of the same film by another sex is .25 away."""
    rows = rows_of(predicted(tmp_path))
    flat = [film(i)[4:12].ravel() / 255 @ np.asarray(PARAMS["weight"], float) / 8 for i in range(3)]
    shifts = rows["score"].to_numpy() - flat
    assert np.abs(shifts - [0.25, 0.5, 0.0]).max() < 0.05


def test_edge_349_by_pooled_asks_no_group(tmp_path):
    rows = rows_of(predicted(tmp_path, "--by=pooled"))
    assert (rows["threshold_of"] == "pooled").all() and (rows["threshold"] == LOW).all()
