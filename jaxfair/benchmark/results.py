"""The file of results: the works of one machine and one code, measured in one call or several."""

import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

from jaxfair import files
from jaxfair.run import log
from jaxfair.run.fingerprint import digest_of_code

__all__ = ["environment", "machine", "write"]

_IDENTITY = ("work", "devices", "precision")


def write(path: str | os.PathLike[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes `content` and returns what was written: its rows, after rows that stay.

    Args:
      content: has `environment` and `rows`. A row that `path` holds already stays if its
        work (on as many devices, in the same precision) is not in `content`, and the file
        was measured in an equal environment: machine, versions and code of the package.
    """
    measured = {_identity(row) for row in content["rows"]}
    stay = [row for row in _rows(path, content["environment"]) if _identity(row) not in measured]
    written = {**content, "rows": [*stay, *content["rows"]]}
    files.write_json(path, written)
    return written


def environment(devices: list[str]) -> dict[str, Any]:
    """Returns `log.environment` with the machine, its malloc and the package's digest."""
    known = log.environment(devices) | {"machine": machine(), "code": digest_of_code()}
    known["malloc"] = os.environ.get("GLIBC_TUNABLES", "")
    return {name: value for name, value in known.items() if name != "command"}


def machine() -> str:
    """Returns the name of the processor and how many cores the machine has."""
    lines = pathlib.Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (lines.read_text().splitlines() if lines.exists() else ())
        if line.startswith("model name")
    ]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _rows(path: str | os.PathLike[str], environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not pathlib.Path(path).exists():
        return []
    found = json.loads(pathlib.Path(path).read_text())
    same = _without_commit(found["environment"]) == _without_commit(environment)
    return found["rows"] if same else []


def _without_commit(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The digest of the package tells more: a commit may change a page, or miss an edit."""
    return {name: value for name, value in environment.items() if name != "commit"}


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _IDENTITY)
