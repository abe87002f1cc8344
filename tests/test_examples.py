"""Every example runs as its docstring says, in seconds, and prints what it is for."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
import warnings

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOK = ROOT / "examples" / "own_model.ipynb"
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
    listed = re.findall(r"\]\((\w+\.\w+)\)", (ROOT / "examples" / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(path.name for path in [*EXAMPLES, NOTEBOOK])


def test_the_notebook_stores_no_output():
    cells = [c for c in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if "outputs" in c]
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)


@pytest.mark.slow
def test_the_notebook_trains_and_shows_its_progress_and_its_claim(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter packages
        nbclient = pytest.importorskip("nbclient")
        nbformat = pytest.importorskip("nbformat")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        where = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, resources=where, timeout=300).execute()
    text = json.dumps(notebook)
    assert "50/50" in text and "'unit': 'patient'" in text and "Traceback" not in text
