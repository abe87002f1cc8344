"""Every notebook runs from top to bottom on a made run, and holds no results of its own."""

import ast
import json
import pathlib
import warnings

import pytest

from tests.made_runs import make_run

_FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "notebooks"
_NOTEBOOKS = sorted(_FOLDER.glob("*.ipynb"))
_READS = {"jaxfair.report", "jaxfair.fairness"}
_SHOWS = {"os", "pathlib", "IPython", "ipywidgets", "matplotlib", "numpy", "pandas"}
_LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.Try)


def code_of(path: pathlib.Path) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def faults_of(source: str) -> set[str]:
    """What a notebook has no business with: other rooms and packages, and logic of its own."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _LOGIC):
            found.add(type(node).__name__)
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name for name in names if not _allowed(name)}
    return found


def _allowed(name: str) -> bool:
    parts = name.split(".")
    return parts[0] in _SHOWS or ".".join(parts[:2]) in _READS


@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_only_read_show_and_store_no_output(path):
    cells = code_of(path)
    assert cells and not any(cell["outputs"] for cell in cells)
    assert faults_of("\n".join("".join(cell["source"]) for cell in cells)) == set()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import jax", "jax"),
        ("from jaxfair import train", "jaxfair.train"),
        ("from jaxfair.privacy.plan import make_plan", "jaxfair.privacy.plan.make_plan"),
        ("import jaxfair", "jaxfair"),
        ("def gap(a, b):\n    return a - b", "FunctionDef"),
        ("gap = lambda a, b: a - b", "Lambda"),
    ],
)
def test_a_notebook_with_logic_or_another_room_would_be_caught(source, fault):
    assert faults_of(source) == {fault}


def test_what_a_notebook_may_import_is_more_than_what_they_import_today():
    plain = "import matplotlib.pyplot as plt\nfrom jaxfair.fairness.gaps import max_min_gap"
    assert faults_of(plain + "\nfrom jaxfair import report\nimport pandas as pd") == set()


@pytest.mark.slow
@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter packages
        nbclient = pytest.importorskip("nbclient")
        nbformat = pytest.importorskip("nbformat")
        folder = make_run(tmp_path / "run", attributes=("sex", "sex x age_group"))
        monkeypatch.setenv("JAXFAIR_RUN", str(folder))
        monkeypatch.setenv("PYTHONPATH", str(_FOLDER.parents[1]))
        notebook = nbformat.read(path, as_version=4)
        options = {"timeout": 300, "kernel_name": "python3"}
        nbclient.NotebookClient(
            notebook, resources={"metadata": {"path": str(_FOLDER)}}, **options
        ).execute()
    text = json.dumps(notebook)
    assert "PHANTOM" in text and "Traceback" not in text
