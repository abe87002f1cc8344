"""Ctrl-C, and a folder that cannot be written: what was found is kept, nothing is read in vain."""

import types

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.model_file.model import Model
from jaxfair.predict import __main__ as command
from jaxfair.predict import scoring, watching
from tests.model_file.made import made_file


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return made_file(tmp_path_factory.mktemp("model") / "m.jaxfair")


@pytest.fixture
def inbox(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    levels = np.random.default_rng(0).integers(0, 256, (16, 12), dtype=np.uint8)
    for i in range(5):
        Image.fromarray(levels).save(folder / f"{i}.png")
    (folder / "0.png").write_bytes(b"none")
    return folder


def interrupt(*given):
    raise KeyboardInterrupt


def test_what_was_scored_before_an_interrupt_is_written_and_the_rest_is_named(
    path, inbox, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(scoring, "BATCH", 2)
    plain, left = Model.score, [1]

    def score(*given):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return plain(*given)

    monkeypatch.setattr(Model, "score", score)
    out = tmp_path / "out"
    assert command.main(["predict", str(path), str(inbox), f"--out={out}"]) == 130
    assert "Interrupted: predict did not finish." in capsys.readouterr().err
    assert pd.read_csv(out / "predictions.csv")["image_id"].tolist() == ["1.png", "2.png"]
    aside = pd.read_csv(out / "rejected.csv").set_index("image_id")["reason"]
    assert sorted(aside.index) == ["0.png", "3.png", "4.png"]
    assert "ended before" in aside["3.png"] and "ended before" not in aside["0.png"]


def test_an_interrupt_between_two_looks_is_the_end_of_watching(
    path, inbox, tmp_path, monkeypatch, capsys
):
    sleeps = iter([lambda: None, interrupt])
    clock = types.SimpleNamespace(sleep=lambda seconds: next(sleeps)())
    monkeypatch.setattr(watching, "time", clock)
    line = ["predict", str(path), str(inbox), f"--out={tmp_path / 'out'}", "--watch"]
    assert command.main(line) == 0
    told = capsys.readouterr()
    assert "4 cases scored, 1 set aside; see" in told.out and "did not finish" not in told.err


def test_a_watch_that_saw_nothing_names_no_page(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(watching, "time", types.SimpleNamespace(sleep=interrupt))
    (tmp_path / "in").mkdir()
    line = ["predict", str(path), str(tmp_path / "in"), f"--out={tmp_path / 'out'}", "--watch"]
    assert command.main(line) == 0
    assert "0 cases scored, 0 set aside." in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--watch"]])
def test_a_folder_that_cannot_be_written_is_refused_before_a_file_is_read(
    path, inbox, tmp_path, monkeypatch, capsys, flags
):
    monkeypatch.setattr(scoring, "read_files", lambda *given, **more: pytest.fail("It reads."))
    monkeypatch.setattr(watching.time, "sleep", lambda seconds: pytest.fail("It waits."))
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out", "/proc/nothing"):
        assert command.main(["predict", str(path), str(inbox), f"--out={out}", *flags]) == 2
        assert f"--out is {out}, which cannot be written (" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
