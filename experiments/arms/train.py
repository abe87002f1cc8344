"""Trains one cell of a grid and scores it: predictions on its own test set and on another one.

It does what `jaxfair.train` does without tables, report and plots, which a study makes once for all
its runs; a step that is done is not done again.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from experiments.arms.features import WithFeatures, reading_features, with_features
from jaxfair import files
from jaxfair.config import Settings, plan_from_settings, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.assembly import assemble
from jaxfair.engine.books import Options
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.opening import open_assembly
from jaxfair.engine.optim import averaged_params, make_optimizer
from jaxfair.engine.step import DEFAULT_MICROBATCH
from jaxfair.run.folder import RunFolder
from jaxfair.scores import evaluated_rows, predictions_table, score_rows
from jaxfair.site import Asked, config_to_change, open_site
from jaxfair.start import first_variables, open_data, population_of, trained_assembly

__all__ = ["CORRELATED", "INDEPENDENT", "predictions_of", "run_cell"]

CORRELATED, INDEPENDENT = "correlated", "independent"
"""The test set of the run's own data, and that in which attribute and label are independent."""


def run_cell(config: ConfigDict, folder: pathlib.Path, independent: Mapping[str, Any]) -> None:
    """Trains what is missing in the folder of a run, and writes its predictions.

    Args:
      config: of the run.
      folder: of the run; an unfinished one is resumed.
      independent: fields of `data` of the second test set; {} for none.
    """
    settings, run = settings_from_config(config), RunFolder(folder)
    if predictions_path(folder, INDEPENDENT if independent else CORRELATED).is_file():
        return
    dataset = with_features(open_data(settings), settings.method)
    if not run.trained():
        _train(config, settings, dataset, run)
    _score(settings, run, dataset, predictions_path(folder, CORRELATED))
    files.write_json(run.data_card, dataset.card)
    if independent:
        asked = Asked(*_changed(run, independent))
        site = open_site(settings, run, asked, progress=False)
        data = with_features(site.dataset, settings.method, progress=False)
        _score(settings, run, data, predictions_path(folder, INDEPENDENT))


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


def _train(config: ConfigDict, settings: Settings, dataset: Dataset, run: RunFolder) -> None:
    method, *variables = first_variables(settings)
    spec = settings.data.spec
    if isinstance(dataset, WithFeatures):
        method, spec = reading_features(method), dataset.arrays
    assembly = assemble(
        plan_from_settings(settings),
        method,
        make_optimizer(settings.optim),
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
    trainer.run()


def _score(settings: Settings, run: RunFolder, dataset: Dataset, path: pathlib.Path) -> None:
    stage, trained = trained_assembly(settings, run)
    method = stage.method
    if isinstance(dataset, WithFeatures):
        method = reading_features(method)
    params = jax.device_get(averaged_params(trained.params, trained.opt_state))
    rows, frozen = evaluated_rows(dataset, method), jax.device_get(stage.frozen)
    scores = score_rows(method, params, frozen, dataset, np.unique(rows["row"]), progress=False)
    scores.pop("maps", None)
    files.write_table(path, predictions_table(dataset, rows, scores))


def _changed(run: RunFolder, fields: Mapping[str, Any]) -> tuple[ConfigDict, frozenset[str]]:
    """The config of a run with other fields of `data`, as a command line would change them."""
    config = config_to_change(run)
    config.data.update_from_flattened_dict(dict(fields))
    return config, frozenset(f"data.{name}" for name in fields)
