"""What a model says of images: a score for each of its tasks, in a row per image and task."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pandas as pd

from jaxfair.data.dataset import Dataset
from jaxfair.methods.base import Method, PyTree
from jaxfair.run.log import progress_bar
from jaxfair.schema import INTERNAL_COLUMNS

__all__ = ["evaluated_rows", "predictions_table", "score_rows"]

_BATCH = 32
_SPLITS = ("validation", "test")


def evaluated_rows(dataset: Dataset, method: Method) -> pd.DataFrame:
    """Returns columns `row` and `split`: validation and test images with a label for a task."""
    labels = dataset.manifest[[f"label_{task}" for task in method.tasks]]
    labelled = labels.notna().any(axis=1).to_numpy()
    parts = [pd.DataFrame({"row": dataset.rows(split), "split": split}) for split in _SPLITS]
    rows = pd.concat(parts, ignore_index=True)
    return rows[labelled[rows["row"]]].reset_index(drop=True)


def score_rows(
    method: Method,
    params: PyTree,
    frozen: PyTree,
    dataset: Dataset,
    rows: np.ndarray,
    *,
    progress: bool = True,
) -> dict[str, np.ndarray]:
    """Returns the outputs of `method.score` for `rows`, each of shape (n, ...)."""

    @jax.jit
    def score(params: PyTree, frozen: PyTree, batch: dict[str, Any]) -> dict[str, jax.Array]:
        if method.prepare is not None:
            batch |= jax.vmap(method.prepare, (None, 0))(frozen, batch)
        return method.score(params, frozen, batch)

    parts = []
    with progress_bar(len(rows), what="scoring", unit="image", hidden=not progress) as bar:
        for part in _parts(rows):
            whole = np.resize(part, _BATCH)
            raw = {name: read(whole) for name, read in dataset.fields.items()}
            outputs = score(params, frozen, raw)
            parts.append({name: np.asarray(v)[: len(part)] for name, v in outputs.items()})
            bar.update(len(part))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def predictions_table(
    dataset: Dataset, rows: pd.DataFrame, scores: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Returns one row per image, split and task that has a label.

    Args:
      rows: of `evaluated_rows`.
      scores: task -> (n,) score of each distinct row, ascending.
    """
    manifest = dataset.manifest.iloc[rows["row"]].reset_index(drop=True)
    manifest["split"] = rows["split"]
    place = np.searchsorted(np.unique(rows["row"]), rows["row"])
    kept = [c for c in manifest.columns if not c.startswith("label_") and c not in INTERNAL_COLUMNS]
    tables = []
    for task, values in scores.items():
        labels = manifest[f"label_{task}"]
        if labels.isna().all():
            continue
        table = manifest[kept].assign(task=task, y_true=labels)
        tables.append(table.assign(y_score=values[place].astype(np.float64))[labels.notna()])
    return pd.concat(tables, ignore_index=True)


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]
