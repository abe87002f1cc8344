"""Every notebook runs from top to bottom on a made run, and holds no results of its own."""

import ast
import json
import pathlib
import warnings

import pytest

from jaxfair import train
from tests.made_runs import make_run
from tests.small import small_config

_FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "notebooks"
_NOTEBOOKS = sorted(_FOLDER.glob("*.ipynb"))
_READS = {"jaxfair.report", "jaxfair.fairness"}
_CALLS = {"jaxfair.load_model", "jaxfair.__main__.main"}  # a model file, and any command by name
_SHOWS = {"os", "pathlib", "json", "tempfile", "IPython", "ipywidgets", "matplotlib", "numpy",
          "pandas"}  # fmt: skip
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
    return parts[0] in _SHOWS or ".".join(parts[:2]) in _READS or name in _CALLS


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
        ("from jaxfair.__main__ import COMMANDS", "jaxfair.__main__.COMMANDS"),
        ("def gap(a, b):\n    return a - b", "FunctionDef"),
        ("gap = lambda a, b: a - b", "Lambda"),
    ],
)
def test_a_notebook_with_logic_or_another_room_would_be_caught(source, fault):
    assert faults_of(source) == {fault}


def test_what_a_notebook_may_import_is_more_than_what_they_import_today():
    plain = "import matplotlib.pyplot as plt\nfrom jaxfair.fairness.gaps import max_min_gap"
    assert faults_of(plain + "\nfrom jaxfair import report\nimport pandas as pd") == set()


def made_for(name: str, folder: pathlib.Path) -> dict[str, str]:
    """Makes what a notebook opens, and returns the variables that name it."""
    run = folder / "run"
    if name != "predict":
        images = 6000 if name == "publish" else 900  # of so few at epsilon 1 no AUROC is shown
        make_run(run, n=images, attributes=("sex", "sex x age_group"))
        return {"JAXFAIR_RUN": str(run)}
    config = small_config(folder)
    train.run(config, run, num_devices=1, progress=False)
    films = next((folder / "phantoms").rglob("stage_2_train_images"))
    return {
        "JAXFAIR_RUN": str(run), "JAXFAIR_FILMS": str(films), "JAXFAIR_OUT": str(folder / "out"),
        "JAXFAIR_WITH_IMAGES": "1",
    }  # fmt: skip


SHOWN = {
    "predict": ("# Model card", "cases scored, 0 set aside", "image/png", "threshold_of"),
    "publish": ("agrees", "tables.csv", "F (sex)", "image/png", "gap_auroc"),
}
"""What two notebooks show that the others do not."""


@pytest.mark.slow
@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_from_top_to_bottom(path, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter packages
        nbclient = pytest.importorskip("nbclient")
        nbformat = pytest.importorskip("nbformat")
        for name, value in made_for(path.stem, tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(_FOLDER.parents[1]))
        monkeypatch.delenv("MPLBACKEND", raising=False)  # of the tests; a kernel shows its figures
        notebook = nbformat.read(path, as_version=4)
        options = {"timeout": 300, "kernel_name": "python3"}
        nbclient.NotebookClient(
            notebook, resources={"metadata": {"path": str(_FOLDER)}}, **options
        ).execute()
    text = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "PHANTOM" in text and "Traceback" not in text
    assert [words for words in SHOWN.get(path.stem, ()) if words not in text] == []
