"""Trains one cell of a grid and scores it: predictions on its own test set and on another one.

It does what `jaxfair.train` does without tables, report and plots, which a study makes once for all
its runs; a step that is done is not done again.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from experiments.arms.features import (
    WithFeatures,
    reading_features,
    with_features,
    with_prepared,
)
from jaxfair import files
from jaxfair.config import Settings, plan_from_settings, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.assembly import assemble
from jaxfair.engine.books import Options
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.opening import open_assembly
from jaxfair.engine.optim import averaged_params
from jaxfair.engine.step import DEFAULT_MICROBATCH
from jaxfair.engine.trainer import Trainer
from jaxfair.methods.base import Method, PyTree
from jaxfair.run.folder import RunFolder
from jaxfair.scores import evaluated_rows, predictions_table, score_rows
from jaxfair.site import Asked, config_of_run, config_to_change, open_site
from jaxfair.start import (
    first_variables,
    open_data,
    optimizer_of,
    population_of,
    trained_assembly,
)

__all__ = [
    "CORRELATED",
    "INDEPENDENT",
    "Scored",
    "predictions_of",
    "predictions_path",
    "run_cell",
    "scored",
]

_OPEN: dict[str, Dataset] = {}

CORRELATED, INDEPENDENT = "correlated", "independent"
"""The test set of the run's own data, and that in which attribute and label are independent."""


class Scored(NamedTuple):
    """A trained network, and images to score.

    Attributes:
      method, params, frozen: of the last stage; parameters are averaged where the run kept that.
      dataset: the images, with what the Method reads.
      rows: columns `row` and `split`, of `scores.evaluated_rows`.
    """

    method: Method
    params: PyTree
    frozen: PyTree
    dataset: Dataset
    rows: pd.DataFrame

    def outputs(self, score: Callable[..., Any]) -> dict[str, np.ndarray]:
        """Returns what `score` says of each of `rows`, in their order."""
        each = np.unique(self.rows["row"])
        method = self.method._replace(score=score)
        found = score_rows(method, self.params, self.frozen, self.dataset, each, progress=False)
        place = np.searchsorted(each, self.rows["row"])
        return {name: values[place] for name, values in found.items()}


def run_cell(
    config: ConfigDict,
    folder: pathlib.Path,
    independent: Mapping[str, Any],
    train: Callable[[Trainer], Any] = Trainer.run,
) -> None:
    """Trains what is missing in the folder of a run, and writes its predictions.

    Args:
      config: of the run.
      folder: of the run; an unfinished one is resumed.
      independent: fields of `data` of the second test set; {} for none.
      train: takes an open trainer to its end.
    """
    settings, run = settings_from_config(config), RunFolder(folder)
    last = predictions_path(folder, INDEPENDENT if independent else CORRELATED)
    if last.is_file():
        return
    if not run.trained():
        dataset = _opened(settings)
        _train(config, settings, dataset, run, train)
        files.write_json(run.data_card, dataset.card)
    for which in (CORRELATED, INDEPENDENT) if independent else (CORRELATED,):
        found = scored(folder, which, independent)
        scores = found.outputs(found.method.score)
        scores.pop("maps", None)
        distinct = {name: _distinct(values, found.rows) for name, values in scores.items()}
        table = predictions_table(found.dataset, found.rows, distinct)
        files.write_table(predictions_path(folder, which), table)


def scored(folder: pathlib.Path, which: str, independent: Mapping[str, Any]) -> Scored:
    """Returns the network of a trained run with the images of one test set (and of validation)."""
    run = RunFolder(folder)
    settings = settings_from_config(config_of_run(run))
    stage, state = trained_assembly(settings, run)
    dataset = _opened(settings) if which == CORRELATED else _opened_site(settings, run, independent)
    dataset, method = _with_inputs(dataset, settings, stage.method, stage.frozen)
    params = jax.device_get(averaged_params(state.params, state.opt_state))
    rows = evaluated_rows(dataset, method)
    return Scored(method, params, jax.device_get(stage.frozen), dataset, rows)


def predictions_path(folder: pathlib.Path, which: str) -> pathlib.Path:
    """Returns where the predictions of a run on a test set lie."""
    return folder / ("predictions.parquet" if which == CORRELATED else f"{which}.parquet")


def predictions_of(folder: pathlib.Path, which: str) -> pd.DataFrame:
    """Returns the rows of a test set, with the validation rows of the run, which thresholds need.

    Raises FileNotFoundError where the run has not been scored on it.
    """
    own = pd.read_parquet(predictions_path(folder, CORRELATED))
    if which == CORRELATED:
        return own
    there = pd.read_parquet(predictions_path(folder, which))
    return pd.concat([own[own["split"] == "validation"], there[own.columns]], ignore_index=True)


def _train(
    config: ConfigDict,
    settings: Settings,
    dataset: Dataset,
    run: RunFolder,
    train: Callable[[Trainer], Any],
) -> None:
    method, *variables = first_variables(settings)
    dataset, method = _with_inputs(dataset, settings, method, variables[1])
    spec = dataset.arrays if isinstance(dataset, WithFeatures) else settings.data.spec
    assembly = assemble(
        plan_from_settings(settings),
        method,
        optimizer_of(settings, method, variables),
        spec=spec,
        variables=tuple(variables),
        microbatch=settings.dp.microbatch or DEFAULT_MICROBATCH,
        mesh=make_mesh(1),
    )
    options = Options(
        save_every=settings.train.checkpoint_every,
        microbatch=settings.dp.microbatch,
        seed=settings.seed,
        progress=False,
    )
    population = population_of(settings, dataset)
    trainer = open_assembly(
        assembly, population, dataset.fields, run.path, config=config.to_dict(), options=options
    )
    train(trainer)


def _with_inputs(
    dataset: Dataset, settings: Settings, method: Method, frozen: PyTree
) -> tuple[Dataset, Method]:
    """The data with what is computed once for all runs, and the Method that reads it there."""
    found = with_features(dataset, settings.method)
    if not isinstance(found, WithFeatures):
        found = with_prepared(found, method, frozen)
    if not isinstance(found, WithFeatures):
        return found, method
    return found, reading_features(method)


def _opened(settings: Settings) -> Dataset:
    """The data of a config; runs of one design share what was opened for the first of them."""
    key = repr(("own", settings.data, settings.phantom))
    if key not in _OPEN:
        _OPEN[key] = open_data(settings)
    return _OPEN[key]


def _opened_site(settings: Settings, run: RunFolder, independent: Mapping[str, Any]) -> Dataset:
    """The data of the second test set, which depends on who trained, and so on the run's data."""
    descent = settings.train.start_from
    key = repr(("site", settings.data, settings.phantom, descent, sorted(independent.items())))
    if key not in _OPEN:
        asked = Asked(*_changed(run, independent))
        _OPEN[key] = open_site(settings, run, asked, progress=False).dataset
    return _OPEN[key]


def _distinct(values: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """Values of rows as values of each distinct row, ascending."""
    return values[np.unique(rows["row"], return_index=True)[1]]


def _changed(run: RunFolder, fields: Mapping[str, Any]) -> tuple[ConfigDict, frozenset[str]]:
    """The config of a run with other fields of `data`, as a command line would change them."""
    config = config_to_change(run)
    config.data.update_from_flattened_dict(dict(fields))
    return config, frozenset(f"data.{name}" for name in fields)
