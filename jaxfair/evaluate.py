"""Scores a trained run: `python -m jaxfair.evaluate --workdir RUN`.

Validation and test images become `predictions.parquet`, one row per image and task; what
is right of that table (thresholds, groups, intervals) needs neither jax nor this file.
"""

import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

from jaxfair import files, report
from jaxfair.config import plan_from_settings, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.optim import averaged_params, make_optimizer
from jaxfair.errors import InputError
from jaxfair.fairness.table import fairness_table, fit_thresholds
from jaxfair.methods.base import Method, PyTree
from jaxfair.run import checkpoint
from jaxfair.run.checkpoint import Checkpoint
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import Board, progress_bar
from jaxfair.schema import CROSSED, INTERNAL_COLUMNS, PHANTOM
from jaxfair.start import description, first_variables, open_data

__all__ = ["main", "run", "score_rows"]

_BATCH = 32
_MAPS = 12
_SPLITS = ("validation", "test")


def run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    with_images: bool = False,
    progress: bool = True,
) -> None:
    """Writes predictions, thresholds, the fairness table and, where allowed, anomaly maps.

    Maps are images of patients: they are written for phantom data or `with_images` only.
    """
    settings, folder = settings_from_config(config), RunFolder(pathlib.Path(workdir))
    dataset = open_data(settings, progress=progress)
    method, params, frozen = first_variables(settings)
    like = Checkpoint(params, make_optimizer(settings.optim).init(params), 0)
    ledger = plan_from_settings(settings).open_ledger(folder.ledger)
    trained = checkpoint.restore(folder.checkpoints, like, ledger)
    if trained is None:
        raise InputError(f"{workdir} holds no checkpoint; train it before it is evaluated.")

    rows = evaluated_rows(dataset, method)
    params = averaged_params(trained.params, trained.opt_state)
    scores = score_rows(method, params, frozen, dataset, np.unique(rows["row"]), progress=progress)
    maps = scores.pop("maps", None)
    predictions = predictions_table(dataset, rows, scores)
    files.write_table(folder.predictions, predictions)
    files.write_json(folder.data_card, dataset.card)
    files.write_json(folder.model, description(settings))
    files.write_json(folder.thresholds, fit_thresholds(predictions))
    groups = [*settings.data.attributes, CROSSED]
    table = fairness_table(predictions, attributes=groups, seed=settings.seed)
    files.write_table(folder.fairness, table)
    if settings.train.tensorboard:
        _write_board(folder, table, trained.step, private=settings.dp.enabled)
    if maps is not None and (with_images or dataset.data == PHANTOM):
        _write_maps(folder, dataset, predictions, np.unique(rows["row"]), maps)


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
        table = manifest[kept].assign(task=task, y_true=labels)
        tables.append(table.assign(y_score=values[place].astype(np.float64))[labels.notna()])
    return pd.concat(tables, ignore_index=True)


def _write_board(folder: RunFolder, table: pd.DataFrame, step: int, *, private: bool) -> None:
    """Adds the AUROC of every group to the TensorBoard files."""
    board = Board(folder.board, private=private)
    shown = table[(table["metric"] == "auroc") & table["value"].notna()]
    names = shown["split"] + "/" + shown["task"] + "/" + shown["attribute"] + "/" + shown["group"]
    board.write(step, dict(zip("auroc/" + names, shown["value"])), covered=False)
    board.close()


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]


def _write_maps(
    folder: RunFolder,
    dataset: Dataset,
    predictions: pd.DataFrame,
    rows: np.ndarray,
    maps: np.ndarray,
) -> None:
    """Writes image and map side by side for the highest test scores."""
    place = {image_id: i for i, image_id in enumerate(dataset.manifest.iloc[rows]["image_id"])}
    test = predictions[predictions["split"] == "test"].nlargest(_MAPS, "y_score")
    folder.maps.mkdir(exist_ok=True)
    top = float(np.quantile(maps, 0.999))
    for image_id in test["image_id"]:
        image = dataset.images(rows[[place[image_id]]])[0, ..., 0]
        both = np.concatenate([image, np.clip(maps[place[image_id]] / top, 0, 1)], axis=1)
        with files.whole(folder.maps / f"{image_id}.png") as draft:
            Image.fromarray(np.uint8(np.round(255 * both))).save(draft)


def main(argv: Sequence[str]) -> int:
    """Evaluates a trained run again; returns the exit status."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_bool("with-images", False, "write maps of real images", flag_values=values)
    try:
        values(list(argv))
        folder = RunFolder(pathlib.Path(values["workdir"].value or "."))
        if not folder.config.exists():
            raise InputError(f"{folder.path} is no run folder: it has no config.json.")
        config = ConfigDict(json.loads(folder.config.read_text()))
        with_images = bool(values["with-images"].value)
        run(config, folder.path, with_images=with_images)
        report.run([folder.path], folder.path, with_images=with_images)
    except (InputError, flags.Error) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
