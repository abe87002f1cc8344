"""What the pages say is there: rules, links, files, tests, and the first program of the README."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

from jaxfair import schema
from jaxfair.fairness.table import COLUMNS
from jaxfair.methods.mitigations.catalog import MITIGATIONS, PRIVACY
from jaxfair.privacy.release import SCHEMA
from jaxfair.run.folder import RunFolder

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CITING = [
    path
    for folder in ("jaxfair", "tests", "configs", "experiments", "examples")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".md", ".ipynb")
]
MOST_LINES = 15

RULE = re.compile(r"(?<![\w./-])[PS][1-9]\d?(?![\w./-])")
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
FILE = re.compile(r"`((?:jaxfair|tests|configs|experiments|examples|docs)/[\w./-]*)`")
TEST = re.compile(r"`(test_\w+)`")


def headings(page: pathlib.Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def known_tests() -> set[str]:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    return {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


def program() -> str:
    found = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    return next(block for block in found if "fit_private" in block)


def test_every_rule_that_is_cited_is_a_heading_of_the_protocol():
    rules = set(headings(ROOT / "docs" / "protocol.md"))
    cited = {rule: path for path in CITING for rule in RULE.findall(path.read_text("utf-8"))}
    assert len(cited) >= 10
    assert {rule: path for rule, path in cited.items() if rule not in rules} == {}


def test_the_protocol_numbers_its_rules_without_a_gap():
    rules = [h for h in headings(ROOT / "docs" / "protocol.md") if RULE.fullmatch(h)]
    assert rules == [f"P{i}" for i in range(1, 19)] + [f"S{i}" for i in range(1, 17)]


def test_every_rule_names_what_holds_it_or_says_that_nothing_does_yet():
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    for rule, body in re.findall(r"^### (\w+)\n(.+?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL):
        words = " ".join(body.split()).lower()
        assert FILE.search(body) or TEST.search(body) or "not yet held" in words, rule


def page_name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_file_that_a_page_links_or_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / name for name in LINK.findall(text)]
    named = [ROOT / name for name in FILE.findall(text) if "NAME" not in name]
    made = ROOT / "docs" / "api"  # by `make docs`
    lost = [p for p in (*linked, *named) if not p.exists() and p.resolve() != made]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_test_that_a_page_names_is_there(page):
    assert set(TEST.findall(page.read_text(encoding="utf-8"))) <= known_tests()


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / n).resolve() for n in LINK.findall(index.read_text("utf-8"))}
    assert {page.resolve() for page in PAGES} - {index} <= listed


def test_tables_of_contributing_hold_what_their_step_says():
    """Each kind is added by one line in one table, whose name and file the steps give."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tables = dict(re.findall(r"Add a line to\s+`([A-Z]+)`\s+in\s+`(jaxfair/[\w/.]+)`", text))
    assert set(tables) == {"METHODS", "SOURCES", "METRICS", "MITIGATIONS"}
    for table, file in tables.items():
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        made = [ast.unparse(n.target) for n in tree.body if isinstance(n, ast.AnnAssign)]
        assert table in made, f"{file} has no table {table}"


def test_the_page_of_mitigations_says_of_each_how_it_stands_to_privacy():
    text = (ROOT / "docs" / "mitigations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]+\| `(\w+)` \|", text, re.MULTILINE)
    assert rows == [(name, entry.privacy) for name, entry in MITIGATIONS.items()]
    assert all(f"- `{standing}`: " in text for standing in PRIVACY)


def section(title: str) -> str:
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(title)}\n(.+?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def test_the_contract_names_every_key_of_a_statement_and_no_other():
    named = re.findall(r"^\| (`.+?`) \|", section("privacy.json"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(named))) == set(SCHEMA)


def test_the_contract_names_the_columns_of_the_tables():
    assert re.findall(r"`(\w+)`", section("fairness.csv"))[: len(COLUMNS)] == list(COLUMNS)
    named = set(re.findall(r"`(\w+)`", section("predictions.parquet")))
    assert {*schema.COLUMNS, *schema.SCORE_COLUMNS} <= named


def test_the_contract_names_every_file_of_a_run():
    paths = {
        name: value.fget(RunFolder(pathlib.Path("run"))).name
        for name, value in vars(RunFolder).items()
        if isinstance(value, property)
    }
    named = {name.rstrip("/") for name in re.findall(r"`([\w./-]+)`", section("Files of a run"))}
    assert {n: file for n, file in paths.items() if file not in named} == {}


def test_the_program_of_the_readme_is_short_and_imports_one_module_of_ours():
    lines = [line for line in program().splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES
    nodes = list(ast.walk(ast.parse(program())))
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)]
    assert [name for name in names if name.split(".")[0] == "jaxfair"] == ["jaxfair"]


def test_the_program_of_the_readme_runs_and_spends_what_it_promises(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 2.5 < float(done.stdout.splitlines()[-1]) <= 3.0
    assert (tmp_path / "runs" / "mine" / "privacy.json").exists()
