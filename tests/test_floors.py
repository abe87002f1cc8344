"""Who may import whom: the house's plan, held by reading every import."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxfair"
FILES = sorted(PACKAGE.rglob("*.py"))

BEDROCK = {"errors", "files", "schema", "tables"}
ROOMS = {  # room -> what it may import of jaxfair, besides itself and the bedrock
    "errors": set(),
    "files": set(),
    "schema": set(),
    "tables": set(),
    "privacy": set(),
    "fairness": set(),
    "models": set(),
    "data": set(),
    "phantom": {"data"},
    "methods": {"models", "privacy"},
    "run": {"privacy"},
    "engine": {"data", "methods", "privacy", "run"},
    "cli": set(),
    "config": {"cli", "data", "engine", "methods", "phantom", "privacy"},
    "experiment": {"config", "data", "engine", "methods", "privacy"},
    "start": {"config", "data", "engine", "methods", "phantom", "privacy", "run"},
    "scores": {"data", "methods", "run"},
    "model_file": {"data", "fairness", "methods"},
    "site": {"cli", "config", "data", "experiment", "phantom", "run", "start"},
    "dryrun": {"config", "engine", "methods", "privacy", "start"},
}
COMMANDS = {"train", "prepare", "evaluate", "leakage", "report", "benchmark", "audit", "account",
            "export", "predict", "pretrain", "publish", "tune"}  # fmt: skip
NEVER = {  # module -> rooms where it must not be imported
    "flax": {"privacy", "fairness", "data"},
    "jax": {
        "cli",
        "fairness",
        "report",
        "phantom",
        "files",
        "errors",
        "schema",
        "run.log",
        "run.folder",
    },
    "pandas": {"privacy"},
}
ONLY = {  # module -> the only rooms where it may be imported
    "pydicom": {"data", "phantom", "predict"},
    "highdicom": {"predict"},
    "matplotlib": {"report"},
    "dp_accounting": {"privacy"},
    "orbax": {"run"},
}
ORACLES = {"torch", "opacus", "jax_privacy", "fairlearn", "skimage", "tensorflow", "torchvision"}
MOST_IN_ROOT = 16


def room_of(path: pathlib.Path) -> str:
    """privacy/noise.py is in the room privacy, train.py in a room of its own."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_of(path: pathlib.Path) -> set[str]:
    """The room of a file, and the file itself: {"run", "run.log"}."""
    return {room_of(path), ".".join(path.relative_to(PACKAGE).with_suffix("").parts)}


def imports_of(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path):
    room = room_of(path)
    inside = {name.split(".")[1] for name in imports_of(path) if name.startswith("jaxfair.")}
    if room in ROOMS:
        assert inside <= ROOMS[room] | BEDROCK | {room}
    if room == "train":
        assert "fairness" not in inside
    if room == "methods":  # a Method has never heard of privacy; a mitigation may choose a clip
        rules = {name for name in imports_of(path) if name.startswith("jaxfair.privacy")}
        assert all(name.startswith("jaxfair.privacy.cliprules.") for name in rules)
        assert not rules or "mitigations" in path.parts
    if room == "engine":  # it is handed readers and files, and asks nobody for a data set
        data = {name for name in imports_of(path) if name.startswith("jaxfair.data")}
        assert all(name.startswith("jaxfair.data.loader.") for name in data)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path):
    modules = {name.split(".")[0] for name in imports_of(path)}
    for module in modules:
        assert not rooms_of(path) & NEVER.get(module, set()), f"{path} must not import {module}"
        only = ONLY.get(module, {room_of(path)})
        assert room_of(path) in only, f"only {only} import {module}"
    assert not modules & (ORACLES | {"configs", "experiments", "tests"})


def test_every_file_has_a_room():
    rooms = {room_of(path) for path in FILES} - {"__init__", "__main__"}
    assert rooms <= set(ROOMS) | COMMANDS


def test_the_root_holds_commands_the_door_and_the_bedrock_only():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_IN_ROOT


def module_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_file_is_on_a_cycle_of_imports():
    """Imports within functions and under TYPE_CHECKING count too."""
    modules = {module_of(path): path for path in FILES}
    ends = {
        name: {
            found
            for asked in imports_of(path)
            for found in (asked, asked.rpartition(".")[0])
            if found in modules and not (found == asked.rpartition(".")[0] and asked in modules)
        }
        for name, path in modules.items()
    }
    order = graphlib.TopologicalSorter(ends)
    order.prepare()  # raises CycleError, which names the files


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_bodies_stay_short(path):
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno < 60, f"{path}: {node.name} is too long"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_names_are_listed_and_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name == "__init__.py":
        return
    public = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    for name in public:
        assert name not in defined or ast.get_docstring(defined[name]), f"{name} has no docstring"


def test_every_test_that_the_guarantee_page_names_is_there():
    named = re.findall(r"`(test_\w+\.py)`", (PACKAGE / "privacy" / "README.md").read_text("utf-8"))
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert named and set(named) <= there
