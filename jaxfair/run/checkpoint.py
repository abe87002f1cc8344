"""Parameters, optimiser and step, saved in one piece with the ledger's head. Never a secret.

A checkpoint is trusted only if it is whole, is this run's, and if the ledger on disk is a
continuation of the one it was saved with; otherwise the one before it is tried. A resume
that forgot what was spent would be a privacy bug, so the ledger decides and not the checkpoint.

A checkpoint holds no times (protocol P16). Orbax writes when it began and ended into its metadata,
where they are set to zero before the seal; and the format OCDBT, which keeps the time of each
commit among its arrays, is not used.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from jaxfair.errors import InputError
from jaxfair.files import write_json
from jaxfair.privacy import release
from jaxfair.privacy.ledger import Ledger

__all__ = ["Checkpoint", "restore", "save"]

PyTree = Any
_KEPT = 2
_METADATA = "_CHECKPOINT_METADATA"
_TIMES = ("init_timestamp_nsecs", "commit_timestamp_nsecs")


class Checkpoint(NamedTuple):
    """Attributes:
    params, opt_state: as in `step.TrainState`.
    step: draws completed.
    """

    params: PyTree
    opt_state: PyTree
    step: int


def save(folder: str | os.PathLike[str], checkpoint: Checkpoint, ledger: Ledger) -> None:
    """Saves a checkpoint, whole or not at all, and drops all but the last two.

    Orbax writes the arrays, on all hosts together; a seal beside them, written last and by
    the first host, holds the hash of every file and the head of the ledger. What has no
    seal does not count.
    """
    folder = pathlib.Path(folder)
    parts = {"params": checkpoint.params, "opt_state": checkpoint.opt_state}
    parts = _with_leaves(release.allowed("checkpoint", parts))
    with _plain_arrays(), _checkpointer(folder) as checkpointer:
        if jax.process_index() == 0:
            _seal_path(folder, checkpoint.step).unlink(missing_ok=True)
        checkpointer.save_checkpointables(checkpoint.step, parts, overwrite=True)
        kept = {found.step for found in checkpointer.checkpoints}
    if jax.process_index() == 0:
        _forget_times(folder / str(checkpoint.step) / _METADATA)
        _seal(folder, checkpoint.step, kept, ledger)


def _forget_times(path: pathlib.Path) -> None:
    write_json(path, json.loads(path.read_text()) | dict.fromkeys(_TIMES, 0))


@contextlib.contextmanager
def _plain_arrays() -> Iterator[None]:
    """Arrays are written as files of zarr, which hold no times."""
    context, absl = ocp.Context(), logging.getLogger("absl")
    context.array.saving.use_ocdbt = False
    absl.addFilter(_is_news)
    try:
        with context:
            yield
    finally:
        absl.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Orbax warns at each save that there is no OCDBT to merge."""
    return "Skipping merge of OCDBT" not in str(record.msg)


def _seal(folder: pathlib.Path, step: int, kept: set[int], ledger: Ledger) -> None:
    seal = {"ledger_length": len(ledger), "ledger_head": ledger.head}
    seal = release.allowed("checkpoint", seal)
    seal["files"] = _file_hashes(folder / str(step))
    write_json(_seal_path(folder, step), seal)
    for old in _sealed_steps(folder):
        if old not in kept:
            _seal_path(folder, old).unlink()


def restore(folder: str | os.PathLike[str], like: Checkpoint, ledger: Ledger) -> Checkpoint | None:
    """Returns the last good checkpoint, or None where none was ever sealed.

    Args:
      like: gives the structure, shapes, dtypes and shardings to restore; with opt_state
        None the optimiser's state is left where it is.
      ledger: the run's ledger as it lies on disk.

    A torn, changed or foreign checkpoint is named on standard error and passed over. Raises
    InputError if there are checkpoints and none of them is good.
    """
    folder = pathlib.Path(folder)
    steps = sorted(_sealed_steps(folder), reverse=True)
    for step in steps:
        fault = _fault(folder, step, ledger)
        if fault is None:
            return _load(folder, step, like)
        print(f"Checkpoint {step} is passed over: {fault}.", file=sys.stderr)
    if steps:
        raise InputError(
            f"None of the {len(steps)} checkpoints in {folder} can be used; start over in a "
            "new --workdir, or put back an intact copy."
        )
    return None


def _load(folder: pathlib.Path, step: int, like: Checkpoint) -> Checkpoint:
    wanted = _with_leaves({"params": like.params, "opt_state": like.opt_state})
    with _checkpointer(folder) as checkpointer:
        loaded = checkpointer.load_checkpointables(step, wanted)
    return Checkpoint(loaded["params"], loaded.get("opt_state", like.opt_state), step)


def _with_leaves(trees: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Without trees that hold nothing, as the state of plain SGD, of which orbax complains."""
    return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}


def _fault(folder: pathlib.Path, step: int, ledger: Ledger) -> str | None:
    try:
        seal = json.loads(_seal_path(folder, step).read_text())
        length, head, hashes = seal["ledger_length"], seal["ledger_head"], seal["files"]
    except (ValueError, KeyError, TypeError):
        return "its seal cannot be read"
    if not ledger.holds(length, head):
        return "the ledger is not the one that it was saved with"
    if _file_hashes(folder / str(step)) != hashes:
        return "its files are not the ones that were saved"
    return None


def _seal_path(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"seal-{step}.json"


def _sealed_steps(folder: pathlib.Path) -> list[int]:
    return [int(path.stem.removeprefix("seal-")) for path in folder.glob("seal-*.json")]


def _file_hashes(folder: pathlib.Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def _checkpointer(folder: pathlib.Path) -> ocp.training.Checkpointer:
    policy = ocp.training.preservation_policies.LatestN(n=_KEPT)
    return ocp.training.Checkpointer(
        folder.resolve(), preservation_policy=policy, cleanup_tmp_directories=True
    )
