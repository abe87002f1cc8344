"""What each room offers by its own name: listed by hand, there, described, and loaded late."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
STUBS = sorted((ROOT / "jaxfair").rglob("__init__.pyi"))


def module_of(stub):
    return ".".join(stub.parent.relative_to(ROOT).parts)


def names_of(stub):
    nodes = ast.parse(stub.read_text()).body
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names]


@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_every_name_that_a_room_offers_is_there_and_described(stub):
    room = importlib.import_module(module_of(stub))
    assert sorted(names_of(stub)) == sorted(room.__all__)
    for name in room.__all__:
        found = getattr(room, name)
        assert found.__doc__, f"{module_of(stub)}.{name} has no docstring"


@pytest.mark.parametrize("stub", STUBS, ids=module_of)
def test_no_name_hides_a_file_of_its_room(stub):
    files = {path.stem for path in stub.parent.iterdir()}
    functions = [
        alias.name
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]
    assert not files & set(functions)


def test_opening_the_rooms_loads_none_of_their_files():
    code = "import sys\n" + "".join(f"import {module_of(stub)}\n" for stub in STUBS)
    code += "print(sorted({'jax', 'flax', 'pandas', 'matplotlib'} & set(sys.modules)))"
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
