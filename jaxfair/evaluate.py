"""Scores a trained run again and writes its report.

    jaxfair evaluate --workdir RUN

Validation and test images become `predictions.parquet`, one row per image and task; what
is right of that table (thresholds, groups, intervals) needs neither jax nor this file.
"""

import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from PIL import Image

from jaxfair import files, report
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import Settings, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.optim import averaged_params
from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.table import fairness_table, fit_thresholds
from jaxfair.methods.base import Method, PyTree
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import Board, progress_bar
from jaxfair.schema import CROSSED, INTERNAL_COLUMNS, PHANTOM
from jaxfair.start import description, open_data, trained_assembly

__all__ = ["COMMAND", "main", "run", "score_rows"]

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

    Raises InputError where somebody else trains or evaluates in the folder.
    """
    settings, folder = settings_from_config(config), RunFolder(pathlib.Path(workdir))
    dataset = open_data(settings, progress=progress)
    if not folder.path.is_dir():
        raise InputError(f"{folder.path} holds no run; train one first.")
    with folder.locked():
        _evaluate(settings, folder, dataset, with_images=with_images, progress=progress)


def _evaluate(
    settings: Settings, folder: RunFolder, dataset: Dataset, *, with_images: bool, progress: bool
) -> None:
    stage, trained = trained_assembly(settings, folder)
    method, frozen = stage.method, jax.device_get(stage.frozen)

    rows = evaluated_rows(dataset, method)
    params = jax.device_get(averaged_params(trained.params, trained.opt_state))
    scores = score_rows(method, params, frozen, dataset, np.unique(rows["row"]), progress=progress)
    maps = scores.pop("maps", None)
    predictions = predictions_table(dataset, rows, scores)
    checked(predictions)  # before anything of it is written
    files.write_table(folder.predictions, predictions)
    files.write_json(folder.data_card, dataset.card)
    told = description(settings) | {"embeds": method.embed is not None}
    files.write_json(folder.model, told)
    groups = [*settings.data.attributes, CROSSED]
    files.write_json(folder.thresholds, fit_thresholds(predictions, attributes=groups))
    table = fairness_table(predictions, attributes=groups, seed=settings.seed)
    files.write_table(folder.fairness, table)
    if settings.train.tensorboard:
        _write_board(folder, table, int(trained.step), private=settings.dp.enabled)
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
        with files.whole(folder.maps / f"{files.slug(image_id)}.png") as draft:
            Image.fromarray(np.uint8(np.round(255 * both))).save(draft)


COMMAND = Command(
    name="evaluate",
    about=__doc__,
    flags=(
        Flag("workdir", str, ".", "folder of the run"),
        Flag("with-images", bool, False, "write maps of real images"),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Evaluates a trained run again; returns the exit status: 0, or 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    folder = RunFolder(pathlib.Path(line.flags["workdir"]))
    config = _config_of(folder)
    run(config, folder.path, with_images=line.flags["with-images"])
    report.run([folder.path], folder.path, with_images=line.flags["with-images"])
    return 0


def _config_of(folder: RunFolder) -> ConfigDict:
    if not folder.config.exists():
        raise InputError(f"{folder.path} is no run folder: it has no config.json.")
    return ConfigDict(files.read_json(folder.config))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
