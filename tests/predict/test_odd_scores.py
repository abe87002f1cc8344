"""A score that is no finite number decides nothing, and is never taken for a low one."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.model_file.model import load_model
from jaxfair.predict import gallery, scoring
from jaxfair.predict.cases import cases_of
from jaxfair.predict.judged import decided
from tests.model_file.made import made_file


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(made_file(tmp_path_factory.mktemp("model") / "m.jaxfair"))


def odd_where_dark(model, name, value):
    """The same model, but that one of its outputs is `value` for dark images."""

    def program(leaves, given):
        found = model.program(leaves, given)
        dark = given["image"].mean((1, 2, 3)) < 0.2
        dark = dark.reshape(-1, *[1] * (found[name].ndim - 1))
        return found | {name: jnp.where(dark, value, found[name])}

    return dataclasses.replace(model, program=program)


@pytest.fixture
def films(tmp_path):
    (tmp_path / "in").mkdir()
    for name, level in (("a dark", 10), ("bright", 150), ("c dark", 10)):
        levels = np.tile(np.array([level - 9, level + 9], np.uint8), (16, 8))
        Image.fromarray(levels).save(tmp_path / "in" / f"{name}.png")
    return cases_of([str(tmp_path / "in")], "picture", ["sex"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_case_without_a_finite_score_is_set_aside_and_not_called_negative(
    model, films, tmp_path, value
):
    out = tmp_path / "out"
    scoring.run(odd_where_dark(model, "mass", value), films, out, progress=False)
    table = pd.read_parquet(out / "predictions.parquet")
    assert table["image_id"].tolist() == ["bright.png"] and np.isfinite(table["score"]).all()
    aside = pd.read_csv(out / "rejected.csv").set_index("image_id")["reason"]
    assert sorted(aside.index) == ["a dark.png", "c dark.png"]
    assert all("no finite score for mass" in reason for reason in aside)
    assert [p.name for p in (out / "maps").iterdir()] == [table["map"][0].removeprefix("maps/")]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("facts", [{"sex": "F"}, {"sex": "M"}])
def test_no_threshold_decides_about_what_is_no_number(model, value, facts):
    assert decided(model, "mass", value, facts, rule="youden") == (None, "", None)


def test_a_map_that_is_not_finite_is_noted_and_not_drawn(model, films, tmp_path):
    odd = odd_where_dark(model, "maps", math.nan)
    session = scoring.run(odd, films, tmp_path / "out", progress=False)
    rows = {row["image_id"]: row for row in session.rows}
    assert (
        rows["a dark.png"]["map"] == ""
        and "Map: its values are not" in (rows["a dark.png"]["notes"])
    )
    assert rows["bright.png"]["map"] and "Map:" not in rows["bright.png"]["notes"]


def test_no_number_takes_no_place_among_the_highest_scores():
    highest, pixels = gallery.Highest(), np.zeros((2, 2, 1), np.uint8)
    for score in [math.nan, *range(30), math.nan]:
        highest.offer({"task": "mass", "score": float(score)}, pixels, None)
    ((_, cases),) = highest.tasks()
    assert [case.row["score"] for case in cases] == list(range(29, 5, -1))
