"""Who may import whom: the house's plan, held by reading every import."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxfair"
FILES = sorted(PACKAGE.rglob("*.py"))

BEDROCK = {"errors", "files"}
ROOMS = {  # room -> what it may import of jaxfair, besides itself and the bedrock
    "errors": set(),
    "files": set(),
    "privacy": set(),
    "fairness": set(),
    "mesh": set(),
    "models": set(),
    "optim": set(),
    "runlog": set(),
    "data": {"mesh"},
    "methods": {"models"},
    "step": {"methods", "privacy", "mesh"},
    "feed": {"data", "mesh", "privacy", "step"},
    "features": {"data", "methods", "runlog"},
    "checkpoint": {"privacy"},
    "config": {"privacy", "data", "methods", "optim"},
    "runfolder": {"privacy"},
    "job": {"config", "data", "mesh", "privacy", "runfolder", "runlog"},
    "microbatch": {"mesh", "methods", "privacy", "step"},
    "start": {"checkpoint", "config", "methods", "runfolder"},
    "scan": {"features", "feed", "mesh", "methods", "step"},
}
COMMANDS = {"train", "prepare", "evaluate", "report", "predict", "benchmark", "audit", "account"}
NEVER = {  # module -> rooms where it must not be imported
    "flax": {"privacy", "fairness", "data"},
    "jax": {"fairness", "runlog", "report", "files", "errors"},
    "pandas": {"privacy"},
}
ONLY = {  # module -> the only rooms where it may be imported
    "pydicom": {"data"},
    "matplotlib": {"report"},
    "dp_accounting": {"privacy"},
    "orbax": {"checkpoint"},
}
ORACLES = {"torch", "opacus", "jax_privacy", "fairlearn", "skimage", "tensorflow", "torchvision"}


def room_of(path: pathlib.Path) -> str:
    """privacy/noise.py is in privacy; report_html.py belongs to report, audit_bench.py to audit."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return inside_room(first)


def inside_room(name: str) -> str:
    prefix = name.partition("_")[0]
    return "report" if name == "plots" else prefix if prefix in COMMANDS else name


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
    inside = {inside_room(name) for name in inside}
    if room in ROOMS:
        assert inside <= ROOMS[room] | BEDROCK | {room}
    if room == "train":
        assert "fairness" not in inside


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_rooms(path):
    room, modules = room_of(path), {name.split(".")[0] for name in imports_of(path)}
    for module in modules:
        assert room not in NEVER.get(module, set()), f"{room} must not import {module}"
        assert room in ONLY.get(module, {room}), f"only {ONLY.get(module)} import {module}"
    assert not modules & (ORACLES | {"configs", "experiments", "tests"})


def test_every_file_has_a_room():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms <= set(ROOMS) | COMMANDS | {"dryrun"}


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
