"""Seals: what binds a saved checkpoint to its files, its parameters and the ledger behind it.

`checkpoints/seal-STEP.json` lies beside the folder of each step and is written last. Nothing
here reads an array or writes to a file that is there.
"""

import hashlib
import json
import pathlib
from typing import Any

from jaxfair.files import json_digest
from jaxfair.privacy.ledger import Ledger

__all__ = ["digests", "fault", "file_hashes", "newest", "seal_path", "sealed_steps"]


def seal_path(folder: pathlib.Path, step: int) -> pathlib.Path:
    """Returns where the seal of a step lies in a folder of checkpoints."""
    return folder / f"seal-{step}.json"


def sealed_steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps that have a seal, ascending."""
    names = (path.stem.removeprefix("seal-") for path in folder.glob("seal-*.json"))
    return sorted(int(name) for name in names if name.isdigit())


def file_hashes(folder: pathlib.Path) -> dict[str, str]:
    """Returns path -> SHA-256, in hex, of every file below `folder`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def fault(folder: pathlib.Path, step: int, ledger: Ledger | None = None) -> str | None:
    """Returns why the checkpoint of a step is not to be trusted, in a few words; None if it is.

    Args:
      ledger: of the run, which has to be a continuation of the one it was saved with; None leaves
        that out.
    """
    try:
        seal = json.loads(seal_path(folder, step).read_text())
        length, head, hashes = seal["ledger_length"], seal["ledger_head"], seal["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return "its seal cannot be read"
    if ledger is not None and not ledger.holds(length, head):
        return "the ledger is not the one that it was saved with"
    if file_hashes(folder / str(step)) != hashes:
        return "its files are not the ones that were saved"
    return None


def newest(run: pathlib.Path) -> tuple[pathlib.Path, int, dict[str, Any]] | None:
    """Returns folder, step and seal of a run's last good checkpoint, or None where there is none.

    A later stage of a Method has checkpoints of its own, in `checkpoints-1` and so on. One that is
    torn or changed is passed over, as a resume does.
    """
    later = {path.name.removeprefix("checkpoints-"): path for path in run.glob("checkpoints-*")}
    folders = [later[name] for name in sorted(filter(str.isdigit, later), key=int)]
    for folder in (*reversed(folders), run / "checkpoints"):
        for step in reversed(sealed_steps(folder)):
            if fault(folder, step) is None:
                return folder, step, json.loads(seal_path(folder, step).read_text())
    return None


def digests(run: pathlib.Path) -> dict[str, str]:
    """Returns what a claim belongs to, by its names in privacy.json.

    `config_digest` is of config.json, `metrics_digest` of the bytes of metrics.jsonl and
    `parameters_digest` of the last checkpoint; "" where there is none (yet).
    """
    metrics, last = run / "metrics.jsonl", newest(run)
    written = hashlib.sha256(metrics.read_bytes()).hexdigest() if metrics.is_file() else ""
    return {
        "config_digest": json_digest(json.loads((run / "config.json").read_text())),
        "metrics_digest": written,
        "parameters_digest": "" if last is None else last[2].get("parameters_digest", ""),
    }
