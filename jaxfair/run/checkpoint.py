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
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxfair.errors import InputError
from jaxfair.files import write_json
from jaxfair.privacy import release, seals
from jaxfair.privacy.ledger import Ledger

__all__ = ["Checkpoint", "digest_of", "restore", "save"]

PyTree = Any
_KEPT = 2
_METADATA = "_CHECKPOINT_METADATA"
_TIMES = ("init_timestamp_nsecs", "commit_timestamp_nsecs")


class Checkpoint(NamedTuple):
    """Attributes:
    params, opt_state: as in `step.TrainState`.
    step: draws completed.
    rule_state: public state of the plan's clip rule; {} for none.
    """

    params: PyTree
    opt_state: PyTree
    step: int
    rule_state: PyTree = {}  # noqa: RUF012  (nobody writes into a checkpoint)


def save(folder: str | os.PathLike[str], checkpoint: Checkpoint, ledger: Ledger) -> None:
    """Saves a checkpoint, whole or not at all, and drops all but the last two.

    Orbax writes the arrays, on all hosts together; a seal beside them, written last and by
    the first host, holds the hash of every file and the head of the ledger. What has no
    seal does not count.
    """
    folder = pathlib.Path(folder)
    parts = _with_leaves(release.allowed("checkpoint", _trees(checkpoint)))
    with _plain_arrays(), _checkpointer(folder) as checkpointer:
        if jax.process_index() == 0:
            seals.seal_path(folder, checkpoint.step).unlink(missing_ok=True)
        checkpointer.save_checkpointables(checkpoint.step, parts, overwrite=True)
        kept = {found.step for found in checkpointer.checkpoints}
    if jax.process_index() == 0:
        _forget_times(folder / str(checkpoint.step) / _METADATA)
        _seal(folder, checkpoint, kept, ledger)


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


def _seal(folder: pathlib.Path, checkpoint: Checkpoint, kept: set[int], ledger: Ledger) -> None:
    seal: dict[str, Any] = {"ledger_length": len(ledger), "ledger_head": ledger.head}
    seal["parameters_digest"] = digest_of(checkpoint)
    seal = release.allowed("checkpoint", seal)
    seal["files"] = seals.file_hashes(folder / str(checkpoint.step))
    write_json(seals.seal_path(folder, checkpoint.step), seal)
    for old in seals.sealed_steps(folder):
        if old not in kept:
            seals.seal_path(folder, old).unlink()


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
    steps = seals.sealed_steps(folder)[::-1]
    for step in steps:
        fault = seals.fault(folder, step, ledger)
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
    wanted = _with_leaves(_trees(like))
    with _checkpointer(folder) as checkpointer:
        loaded = checkpointer.load_checkpointables(step, wanted)
    opt_state = loaded.get("opt_state", like.opt_state)
    return Checkpoint(loaded["params"], opt_state, step, loaded.get("rule_state", like.rule_state))


def _trees(checkpoint: Checkpoint) -> dict[str, PyTree]:
    return {name: getattr(checkpoint, name) for name in ("params", "opt_state", "rule_state")}


def _with_leaves(trees: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Without trees that hold nothing, as the state of plain SGD, of which orbax complains."""
    return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}


def digest_of(checkpoint: Checkpoint) -> str:
    """Returns the SHA-256, in hex, of what a checkpoint releases, by content.

    It covers name, dtype, shape and bytes of every leaf of the parameters, of the optimiser's
    state (which holds their average) and of the clip rule's, in the order of their names. Two
    checkpoints have one digest only if they hold the same network, bit by bit.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(_trees(checkpoint))
    }
    digest = hashlib.sha256()
    for name, leaf in sorted(leaves.items()):
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()


def _checkpointer(folder: pathlib.Path) -> ocp.training.Checkpointer:
    policy = ocp.training.preservation_policies.LatestN(n=_KEPT)
    return ocp.training.Checkpointer(
        folder.resolve(), preservation_policy=policy, cleanup_tmp_directories=True
    )
