"""Probes what a trained run's embedding tells about patients, and writes `leakage.csv`.

    jaxfair leakage --workdir RUN [--baseline RUN]

Fresh probes, linear and with one hidden layer, read each sensitive attribute (those of
data.groups, else all of the data but the view) from the frozen embedding, within each value of
each label; beside it from mean intensities, and from the embedding of a baseline run. They are
fitted on validation patients and scored on test patients. Neither probes nor embeddings are kept.
"""

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfair import files, report
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import Settings, method_from_settings, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.optim import averaged_params
from jaxfair.errors import InputError
from jaxfair.fairness.leakage import Embedding, leakage_table
from jaxfair.fairness.probes import LINEAR
from jaxfair.fairness.questions import BASELINE, GRID, MEAN, MODEL, PIXELS, thinned
from jaxfair.methods.base import PyTree
from jaxfair.run.folder import RunFolder
from jaxfair.scores import evaluated_rows, score_rows
from jaxfair.site import config_of_run
from jaxfair.start import open_data, trained_assembly

__all__ = ["COMMAND", "is_asked", "main", "pixel_means", "run"]

_BINS = 8
_READ = 256


def run(
    workdir: str | os.PathLike[str], *, baseline: str | None = None, progress: bool = True
) -> pd.DataFrame:
    """Probes a trained run, writes its `leakage.csv` and returns the table.

    Args:
      workdir: folder of the run; data as its config says.
      baseline: folder of a run that is probed on the same images, as one without mitigation.
      progress: show progress bars.

    Raises InputError where the run has no checkpoint, its Method no embedding, its data no
    attribute, or where the baseline trained on one of the images.
    """
    folder = RunFolder(pathlib.Path(workdir))
    settings = settings_from_config(config_of_run(folder))
    dataset = open_data(settings, progress=progress)
    _refuse_without_embedding(settings)
    attributes = _attributes(settings)
    with folder.locked():
        stage, _ = model = _model(settings, folder)
        rows = evaluated_rows(dataset, stage.method)
        ids = dataset.manifest["patient_id"].to_numpy()
        rows = rows.iloc[thinned(rows.assign(patient_id=ids[rows["row"]]))]
        people = dataset.manifest.iloc[rows["row"]].reset_index(drop=True)
        people["split"] = rows["split"].to_numpy()
        embeddings = _embeddings(model, dataset, rows["row"].to_numpy(), progress)
        if baseline is not None:
            embeddings += _baseline(pathlib.Path(baseline), people, progress)
        embeddings += _pixels(dataset, rows["row"].to_numpy())
        tasks = stage.method.tasks
        table = leakage_table(people, embeddings, attributes, tasks, seed=settings.seed)
        files.write_table(folder.leakage, table)
    return table


def is_asked(settings: Settings) -> bool:
    """Returns whether training ends with these probes: `train.leakage`, or what stands for it.

    Raises InputError where they are asked for and there is nothing to probe.
    """
    asked = settings.train.leakage
    if asked is None:
        return bool(settings.data.groups) and _embeds(settings)
    if asked:
        _refuse_without_embedding(settings)
        _attributes(settings)
    return asked


def _embeds(settings: Settings) -> bool:
    """Whether the network of the run's last stage, which is its model, has an embedding."""
    first = method_from_settings(settings)
    last = first.stages[-1].method if first.stages else first
    return last.embed is not None


def _refuse_without_embedding(settings: Settings) -> None:
    if not _embeds(settings):
        raise InputError(
            f"The method {settings.method_name!r} has no embedding of a whole image that could be "
            "probed for attributes: use one that classifies, or leave train.leakage out."
        )


def _attributes(settings: Settings) -> tuple[str, ...]:
    found = settings.data.groups or tuple(a for a in settings.data.attributes if a != "view")
    if not found:
        raise InputError(
            "These data have no attribute of patients that could be read from an embedding: name "
            "columns in data.groups."
        )
    return found


def _model(settings: Settings, folder: RunFolder) -> tuple[Any, Any]:
    """The network of a run's last stage, and its last parameters (their average, if kept)."""
    stage, state = trained_assembly(settings, folder)
    return stage, jax.device_get(averaged_params(state.params, state.opt_state))


def _embeddings(
    model: tuple[Any, Any], dataset: Dataset, rows: np.ndarray, progress: bool, **named: Any
) -> list[Embedding]:
    """Each embedding of the Method for `rows`, and its predictions; these rest on the first."""
    stage, params = model
    method = stage.method

    def embed(params: PyTree, frozen: PyTree, batch: dict[str, Any]) -> dict[str, jax.Array]:
        scores = method.score(params, frozen, batch)
        predicted = jnp.stack([scores[task] for task in method.tasks], axis=-1)
        return {**method.embed(params, frozen, batch), "score": predicted}

    embeds = method._replace(score=embed)
    frozen, each = jax.device_get(stage.frozen), np.unique(rows)
    found = score_rows(embeds, params, frozen, dataset, each, progress=progress)
    place = np.searchsorted(each, rows)
    found["score"] = found.pop("score")  # jax hands names on in the order of the alphabet
    first, *others = [Embedding(name, x[place], **named) for name, x in found.items()]
    simple = [embedding._replace(probes=(LINEAR,)) for embedding in others]
    return [first._replace(control=first.source == MODEL), *simple]


def _baseline(path: pathlib.Path, people: pd.DataFrame, progress: bool) -> list[Embedding]:
    """The first embedding of another run for the same images, which it must not have trained on."""
    folder = RunFolder(path)
    settings = settings_from_config(config_of_run(folder))
    dataset = open_data(settings, progress=progress)
    _refuse_without_embedding(settings)
    model = _model(settings, folder)
    rows = pd.Series(np.arange(len(dataset)), dataset.manifest["image_id"])
    found = rows.reindex(people["image_id"])
    trained = dataset.manifest["image_id"][dataset.rows("train")]
    wrong = people["image_id"][found.isna().to_numpy() | people["image_id"].isin(trained)]
    if len(wrong):
        raise InputError(
            f"--baseline={path} trained on, or does not have, {len(wrong)} of the {len(people)} "
            f"images that are probed (such as {wrong.iloc[0]}): give a run on the same data and "
            "split."
        )
    places = found.to_numpy(np.int64)
    return _embeddings(model, dataset, places, progress, source=BASELINE, run=path.resolve().name)[
        :1
    ]


def _pixels(dataset: Dataset, rows: np.ndarray) -> list[Embedding]:
    parts = [
        pixel_means(dataset.images(rows[start : start + _READ]))
        for start in range(0, len(rows), _READ)
    ]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    mean, grid = (Embedding(name, values, PIXELS) for name, values in whole.items())
    return [mean._replace(probes=(LINEAR,)), grid]


def pixel_means(images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Returns "mean", (b, c), and "grid", means over 8 equal parts of each axis, (b, 8 * 8 * c).

    Args:
      images: (b, h, w, c) or (b, d, h, w, c); an axis shorter than 8 has as many parts as pixels.
    """
    grid: np.ndarray = np.asarray(images, dtype=np.float32)
    for axis in range(1, grid.ndim - 1):
        size = grid.shape[axis]
        starts = np.linspace(0, size, min(_BINS, size), endpoint=False).astype(int)
        sums = np.add.reduceat(grid, starts, axis=axis)
        widths = np.diff(np.append(starts, size))
        shape = [-1 if i == axis else 1 for i in range(grid.ndim)]
        grid = sums / widths.reshape(shape).astype(np.float32)
    inner = tuple(range(1, images.ndim - 1))
    return {MEAN: images.mean(axis=inner), GRID: grid.reshape(len(grid), -1)}


COMMAND = Command(
    name="leakage",
    about=__doc__,
    flags=(
        Flag("workdir", str, ".", "folder of the run"),
        Flag("baseline", str, None, "folder of a run that is probed on the same images"),
        Flag("with-images", bool, False, "show images of patients in the report"),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Probes a trained run and reports again; returns 0, or 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    folder = RunFolder(pathlib.Path(line.flags["workdir"]))
    run(folder.path, baseline=line.flags["baseline"])
    print(f"What the probes read stands in {folder.leakage}, and in the report.")
    if folder.trained() and folder.predictions.is_file():
        runs = report.compared(folder.path)
        report.run(runs, folder.path, with_images=line.flags["with-images"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
