"""Every example runs as its docstring says, in seconds, and prints what it is for."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PRINTS = {  # example -> what its last line must say
    "by_hand": r"epsilon (3\.\d+|4\.00), w \[",
    "check_model": r"largest difference \d\.\de-0[6-9]",
    "own_loop": r"\d+ steps made, w \[",
    "own_model": r"epsilon (2\.\d+|3\.00), accuracy (0\.[89]\d|1\.00)",
    "own_predictions": r"AUROC: worst group F, gap 0\.\d+",
}
MOST_LINES = 40


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_runs_and_ends_with_what_it_shows(path, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.match(PRINTS[path.stem], done.stdout.splitlines()[-1]), done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_every_example_is_short_and_says_its_command_and_time(path):
    source = path.read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(source)) or ""
    assert len(source.splitlines()) < MOST_LINES
    assert f"python examples/{path.name}" in told and re.search(r"about \d+ seconds", told)


def test_every_example_is_in_the_table_of_its_folder():
    listed = re.findall(r"\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text("utf-8"))
    assert sorted(listed) == [path.name for path in EXAMPLES]
