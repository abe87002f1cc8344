"""Hostile model files through the command: one sentence, status 2, soon, and nothing written."""

import time

import numpy as np
import pytest
from PIL import Image

from jaxfair.predict import __main__ as command
from tests.model_file.hostile import DEMANDING, HOSTILE

SOON = 10
"""Seconds."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_sentence_and_writes_nothing(name, tmp_path, capsys):
    path = tmp_path / "in" / "m.jaxfair"
    path.parent.mkdir()
    word, made = HOSTILE[name]
    path.write_bytes(made())
    (tmp_path / "film.png").write_bytes(b"none")
    begun = time.process_time()
    line = ["predict", str(path), str(tmp_path / "film.png"), f"--out={tmp_path / 'out'}"]
    assert command.main(line) == 2
    assert time.process_time() - begun < SOON
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1 and said.err.rstrip().endswith(".")
    assert said.err.count(". ") <= 1 and "m.jaxfair" in said.err, said.err
    assert word in said.err, said.err
    assert 30 < len(said.err) < 600 and "Traceback" not in said.err
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["film.png", "in", "m.jaxfair"]


@pytest.mark.parametrize("name", DEMANDING)
def test_a_program_that_asks_for_too_much_is_refused_before_it_is_run(name, tmp_path, capsys):
    path = tmp_path / "m.jaxfair"
    word, made = DEMANDING[name]
    path.write_bytes(made())
    Image.fromarray(np.eye(20, dtype=np.uint8)).save(tmp_path / "film.png")
    line = ["predict", str(path), str(tmp_path / "film.png"), f"--out={tmp_path / 'out'}"]
    begun = time.process_time()
    assert command.main(line) == 2
    assert time.process_time() - begun < SOON
    said = capsys.readouterr().err.splitlines()[-1]
    assert word in said and "Traceback" not in said
    assert not (tmp_path / "out" / "predictions.csv").exists()
