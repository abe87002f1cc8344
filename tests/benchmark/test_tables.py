"""The pages show what was measured, and nothing else."""

import pathlib
import sys

import pytest

EXPERIMENT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "e07_throughput"


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENT)
    import tables

    yield tables
    sys.modules.pop("tables")


def test_the_pages_hold_the_tables_of_the_results(tables):
    assert tables.main(["--check"]) == 0, "run experiments/e07_throughput/tables.py"


def test_every_table_stands_on_a_page(tables):
    pages = "".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
    assert all(f"<!-- {name} -->\n" in pages for name in tables.TABLES)


def test_a_changed_number_is_noticed(tables, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text(tables.filled("<!-- summary -->\n<!-- end -->\n"))
    monkeypatch.setattr(tables, "PAGES", (page,))
    assert tables.main(["--check"]) == 0
    page.write_text(page.read_text().replace("| 1.", "| 9.", 1))
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == tables.main(["--check"]) == 0
