"""A folder that is watched: what comes is scored once, whole, and under a name of its own."""

import errno
import json
import math
import os
import types

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.errors import InputError
from jaxfair.model_file.model import load_model
from jaxfair.predict import __main__ as command
from jaxfair.predict import watching
from tests.model_file.made import made_file


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return made_file(tmp_path_factory.mktemp("model") / "m.jaxfair")


@pytest.fixture(scope="module")
def model(path):
    return load_model(path)


def film(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 256, (16, 12), dtype=np.uint8)
    Image.fromarray(levels).save(path)


@pytest.fixture
def watched(model, tmp_path, monkeypatch):
    """Watches while things happen, one between two looks, and gives the session."""
    (tmp_path / "in").mkdir()

    def watch(*happening, inputs=("in",), **choices):
        steps = iter(happening)
        clock = types.SimpleNamespace(sleep=lambda seconds: next(steps)())
        monkeypatch.setattr(watching, "time", clock)
        places, out = [str(tmp_path / given) for given in inputs], tmp_path / "out"
        given = {"columns": {}, "every": 1.0, "progress": False} | choices
        return watching.watch(model, places, out, polls=len(happening) + 1, **given)

    return watch


def nothing():
    pass


def names(session):
    return [row["image_id"] for row in session.rows]


def test_a_file_is_taken_once_and_only_when_it_stands_still(watched, tmp_path):
    film(tmp_path / "whole.png")
    whole, folder = (tmp_path / "whole.png").read_bytes(), tmp_path / "in"
    session = watched(
        nothing,
        lambda: (folder / "a.png").write_bytes(whole[:50]),
        lambda: (folder / "a.png").write_bytes(whole),
        nothing,
        lambda: film(folder / "b.png"),
        nothing,
        nothing,
    )
    assert names(session) == ["a.png", "b.png"] and not session.aside
    assert len(pd.read_parquet(tmp_path / "out" / "predictions.parquet")) == 2


@pytest.mark.parametrize("between", ["gone for a while", "written over"])
def test_another_film_under_an_old_name_is_scored_and_keeps_the_old_map(watched, tmp_path, between):
    place = tmp_path / "in" / "a.png"
    film(place, 1)
    leave = nothing if between == "written over" else place.unlink
    session = watched(nothing, leave, lambda: film(place, 2), nothing, nothing)
    assert names(session) == ["a.png", str(place)]
    maps = [(tmp_path / "out" / row["map"]).read_bytes() for row in session.rows]
    assert maps[0] != maps[1] and session.rows[0]["score"] != session.rows[1]["score"]


def test_two_folders_with_films_of_one_name_keep_both_maps_whichever_comes_first(watched, tmp_path):
    (tmp_path / "x").mkdir()
    film(tmp_path / "y" / "a.png", 1)
    later = lambda: film(tmp_path / "x" / "a.png", 2)
    session = watched(nothing, later, nothing, nothing, inputs=("x", "y"))
    assert names(session) == ["a.png", str(tmp_path / "x" / "a.png")] or names(session) == [
        "a.png", str(tmp_path / "y" / "a.png")]  # fmt: skip
    assert len({(tmp_path / "out" / row["map"]).read_bytes() for row in session.rows}) == 2


def test_a_file_that_goes_between_two_looks_ends_nothing(watched, tmp_path, monkeypatch):
    film(tmp_path / "in" / "a.png")
    film(tmp_path / "in" / "b.png")
    plain, left = watching.cases_of, [3]

    def going(*given, **more):
        found = plain(*given, **more)
        left[0] -= 1
        if left[0] == 0:
            (tmp_path / "in" / "a.png").unlink()
        return found

    monkeypatch.setattr(watching, "cases_of", going)
    assert names(watched(nothing, nothing, nothing)) == ["b.png"]


def test_what_is_named_by_a_table_is_waited_for(watched, tmp_path):
    (tmp_path / "t.csv").write_text("id,path,sex\n7,late.png,F\n8,late.png,F\n")
    session = watched(
        nothing, nothing, lambda: film(tmp_path / "late.png"), nothing, inputs=("t.csv",)
    )
    assert names(session) == ["7", "8"] and not session.aside


def test_an_input_that_goes_later_is_said_once_and_the_others_go_on(watched, tmp_path, capsys):
    (tmp_path / "share").mkdir()
    session = watched(
        (tmp_path / "share").rmdir,
        lambda: film(tmp_path / "in" / "a.png"),
        nothing,
        inputs=("share", "in"),
    )
    assert names(session) == ["a.png"]
    assert capsys.readouterr().err.count(f"There is no {tmp_path / 'share'}") == 1


@pytest.mark.parametrize("gone", ["folder", "files"])
def test_a_share_that_is_gone_for_a_while_is_not_scored_again(watched, tmp_path, gone):
    """The same files under the same names: all of them used to be taken for other patients'."""
    film(tmp_path / "in" / "a.png")
    film(tmp_path / "in" / "sub" / "b.png")
    one, other = ("in", "away") if gone == "folder" else ("in/sub", "in/.sub")
    session = watched(
        nothing,
        lambda: (tmp_path / one).rename(tmp_path / other),
        lambda: (tmp_path / other).rename(tmp_path / one),
        nothing,
        lambda: film(tmp_path / "in" / "a.png", 1),
        nothing,
    )
    assert names(session) == ["a.png", "sub/b.png", str(tmp_path / "in" / "a.png")]


def test_a_disk_that_fails_for_a_moment_ends_nothing(watched, tmp_path, monkeypatch, capsys):
    film(tmp_path / "in" / "a.png")
    plain, looks = watching.cases_of, [0]

    def failing(*given, **more):
        looks[0] += 1
        if looks[0] in (3, 4):
            raise OSError(errno.ESTALE, "Stale file handle", str(tmp_path / "in"))
        return plain(*given, **more)

    monkeypatch.setattr(watching, "cases_of", failing)
    assert names(watched(nothing, nothing, nothing)) == ["a.png"]
    assert "Stale file handle" in capsys.readouterr().err


@pytest.mark.parametrize("every", [-1.0, 0.0, math.nan, math.inf, 1e9])
def test_a_time_between_looks_that_is_none_is_one_sentence(watched, every):
    with pytest.raises(InputError, match=r"--every is .*; it takes seconds"):
        watched(every=every)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--every=-1"], "--every is -1"),
        (["--rule=best"], "--rule is 'best'"),
        (["--by=race"], "--by is 'race'"),
        (["--columns=sex=X"], "no column 'X'"),
        ([], "There is no"),
    ],
)
def test_a_wrong_line_is_refused_at_once_and_not_at_the_first_file(
    path, tmp_path, monkeypatch, capsys, flags, said
):
    monkeypatch.setattr(watching, "time", types.SimpleNamespace(sleep=lambda _: pytest.fail("on")))
    (tmp_path / "in").mkdir()
    (tmp_path / "t.csv").write_text("path\na.png\n")
    given = "in" if flags else "missing"
    given = "t.csv" if flags == ["--columns=sex=X"] else given
    line = ["predict", str(path), str(tmp_path / given), f"--out={tmp_path / 'out'}", "--watch"]
    assert command.main([*line, *flags]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and not (tmp_path / "out").exists()


def test_the_tables_name_every_case_that_came(watched, tmp_path):
    film(tmp_path / "in" / "a.png")
    watched(nothing, lambda: (tmp_path / "in" / "b.png").write_bytes(b"none"), nothing, nothing)
    told = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["image_id"] for row in told["predictions"]] == ["a.png"]
    assert [row["image_id"] for row in told["rejected"]] == ["b.png"]
    assert os.listdir(tmp_path / "out" / "maps")


def test_a_row_that_says_something_else_later_is_taken_again(watched, tmp_path):
    """A program that writes a table row by row leaves half of one in it for a while."""
    table = tmp_path / "t.csv"
    film(tmp_path / "a.png")
    table.write_text("path,age\na.png,6")
    session = watched(
        nothing, lambda: table.write_text("path,age\na.png,61\n"), nothing, inputs=("t.csv",)
    )
    assert [row["age"] for row in session.rows] == [6.0, 61.0]
    assert names(session) == ["a.png", str(tmp_path / "a.png")]


def test_a_row_that_is_being_written_is_waited_for(watched, tmp_path):
    table = tmp_path / "t.csv"
    film(tmp_path / "a.png")
    table.write_text("path,age\na.png,6")
    session = watched(lambda: table.write_text("path,age\na.png,61\n"), nothing, inputs=("t.csv",))
    assert [row["age"] for row in session.rows] == [61.0]
