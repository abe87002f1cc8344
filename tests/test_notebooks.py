"""Every notebook runs from top to bottom on a made run, and holds no results of its own."""

import json
import pathlib
import warnings

import pytest

from tests.made_runs import make_run

_FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "notebooks"
_NOTEBOOKS = sorted(_FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", _NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_call_report_and_fairness_only_and_store_no_output(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] for cell in cells)
    source = "\n".join("".join(cell["source"]) for cell in cells)
    imported = [line for line in source.splitlines() if "import" in line]
    allowed = (
        "import os",
        "from IPython.display import Image",
        "from jaxfair import report",
        "from jaxfair.fairness import contrasts, metrics",
    )
    assert set(imported) <= set(allowed)
    assert "def " not in source


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
