"""Parameters, optimiser and step, saved in one piece with the ledger's head. Never a secret.

A checkpoint is trusted only if it is whole, is this run's, and if the ledger on disk is a
continuation of the one it was saved with; otherwise the one before it is tried. A resume
that forgot what was spent would be a privacy bug, so the ledger decides and not the checkpoint.
"""

import hashlib
import os
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxfair.errors import InputError
from jaxfair.privacy.ledger import Ledger

__all__ = ["Checkpoint", "restore", "save"]

PyTree = Any
_KEPT = 2


class Checkpoint(NamedTuple):
    """Attributes:
    params, opt_state: as in `step.TrainState`.
    step: draws completed.
    """

    params: PyTree
    opt_state: PyTree
    step: int


def save(folder: str | os.PathLike[str], checkpoint: Checkpoint, ledger: Ledger) -> None:
    """Saves a checkpoint, whole or not at all, and drops all but the last two."""
    tree = {"params": checkpoint.params, "opt_state": checkpoint.opt_state}
    meta = {"digest": _digest(tree), "ledger_length": len(ledger), "ledger_head": ledger.head}
    with _checkpointer(folder) as checkpointer:
        checkpointer.save_checkpointables(
            checkpoint.step, {"state": tree}, custom_metadata=meta, overwrite=True
        )


def restore(folder: str | os.PathLike[str], like: Checkpoint, ledger: Ledger) -> Checkpoint | None:
    """Returns the last good checkpoint, or None where none was ever saved.

    Args:
      like: gives the shapes, dtypes and shardings to restore.
      ledger: the run's ledger as it lies on disk.

    A torn, changed or foreign checkpoint is named on standard error and passed over. Raises
    InputError if there are checkpoints and none of them is good.
    """
    if not pathlib.Path(folder).is_dir():
        return None
    abstract = {"params": like.params, "opt_state": like.opt_state}
    with _checkpointer(folder) as checkpointer:
        steps = sorted((found.step for found in checkpointer.checkpoints), reverse=True)
        for step in steps:
            try:
                return _load(checkpointer, step, abstract, ledger)
            except Exception as error:
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                print(f"Checkpoint {step} is passed over: {reason}", file=sys.stderr)
    if steps:
        raise InputError(
            f"None of the {len(steps)} checkpoints in {folder} can be used; start over in a "
            "new --workdir, or put back an intact copy."
        )
    return None


def _load(checkpointer: Any, step: int, abstract: PyTree, ledger: Ledger) -> Checkpoint:
    meta = checkpointer.checkpointables_metadata(step).custom_metadata or {}
    if not {"digest", "ledger_length", "ledger_head"} <= set(meta):
        raise ValueError("it is not a checkpoint of jaxfair")
    if not ledger.holds(meta["ledger_length"], meta["ledger_head"]):
        raise ValueError("the ledger is not the one that it was saved with")
    loaded = checkpointer.load_checkpointables(step, {"state": abstract})["state"]
    if _digest(loaded) != meta["digest"]:
        raise ValueError("its arrays are not the ones that were saved")
    return Checkpoint(loaded["params"], loaded["opt_state"], step)


def _checkpointer(folder: str | os.PathLike[str]) -> ocp.training.Checkpointer:
    policy = ocp.training.preservation_policies.LatestN(n=_KEPT)
    path = pathlib.Path(folder).resolve()
    return ocp.training.Checkpointer(path, preservation_policy=policy, cleanup_tmp_directories=True)


def _digest(tree: PyTree) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
