"""The runs of a search: each a training by the present trainer, and its score."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from jaxfair import files, train
from jaxfair.config import Settings, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.books import Options
from jaxfair.engine.optim import averaged_params
from jaxfair.fairness.metrics import auroc
from jaxfair.privacy.score import noisy_score, unit_scores
from jaxfair.privacy.secret import Secret
from jaxfair.report.tried import plot_of_tried
from jaxfair.run.folder import RunFolder
from jaxfair.scores import evaluated_rows, predictions_table, score_rows
from jaxfair.start import trained_assembly

__all__ = ["SearchFolder", "Trial", "best", "forget", "keep", "scored", "trained", "write_tried"]


@dataclasses.dataclass(frozen=True)
class SearchFolder:
    """The folder of a search.

    `chosen` is the run that is covered by the claim; `trials`, `tried` and `plot` are covered by
    none, and `secret` is there while the search is under way.
    """

    path: pathlib.Path

    search = property(lambda self: self.path / "search.json")
    secret = property(lambda self: self.path / "secret")
    fingerprint = property(lambda self: self.path / "fingerprint.json")
    lock = property(lambda self: self.path / "lock")
    trials = property(lambda self: self.path / "trials")
    chosen = property(lambda self: self.path / "chosen")
    tried = property(lambda self: self.path / "tried.csv")
    plot = property(lambda self: self.path / "tried.png")

    def trial(self, number: int) -> pathlib.Path:
        """Returns where run `number` of the search lies."""
        return pathlib.Path(self.trials / f"{number:04d}")


class Trial(NamedTuple):
    """One run of a search, before it is trained.

    Attributes:
      number: 0 for the first.
      settings: what it draws, by field of the config.
      config: the whole config.
      folder: of the run.
    """

    number: int
    settings: Mapping[str, Any]
    config: ConfigDict
    folder: RunFolder

    @property
    def score_file(self) -> pathlib.Path:
        return self.folder.path / "score.json"


def trained(trial: Trial, num_devices: int | None, options: Options) -> None:
    """Trains the run of a trial to its end, or goes on where it was left."""
    if trial.folder.trained():
        trial.folder.forget_secret()
        return
    settings = settings_from_config(trial.config)
    options = options._replace(
        save_every=settings.train.checkpoint_every,
        microbatch=settings.dp.microbatch,
        insecure_seed=settings.dp.insecure_seed,
    )
    train.open_training(
        trial.config, settings, trial.folder, options, num_devices=num_devices
    ).run()


def scored(trial: Trial, dataset: Dataset, noise: tuple[Secret, float] | None) -> float:
    """Returns the score of a trained trial, from its file if it was scored before; high is good.

    Args:
      noise: secret of the search and noise multiplier, for a score under a guarantee for validation
        patients (`privacy/score.py`); None for the mean AUROC over the tasks, which is under none.
    """
    if not trial.score_file.exists():
        table = _validation(settings_from_config(trial.config), trial.folder, dataset)
        value = _mean_auroc(table) if noise is None else _noisy(table, *noise, trial.number)
        files.write_json(trial.score_file, {"score": value})
    value = files.read_json(trial.score_file)["score"]
    return -np.inf if value is None else float(value)


def best(scores: Mapping[int, float]) -> int:
    """Returns the number of the trial with the highest score, the first of equals.

    >>> best({0: 0.5, 1: 0.75, 2: 0.75})
    1
    """
    return min(scores, key=lambda number: (-scores[number], number))


def keep(trial: Trial, folder: SearchFolder) -> None:
    """Makes a trial the chosen run of the search; nothing in it tells which one it was."""
    trial.score_file.unlink(missing_ok=True)
    trial.folder.level_times()
    os.replace(trial.folder.path, folder.chosen)


def forget(folder: SearchFolder) -> None:
    """Removes the trials that were not chosen, whom no claim covers."""
    shutil.rmtree(folder.trials, ignore_errors=True)


def write_tried(
    folder: SearchFolder, trials: Sequence[Trial], scores: dict[int, float], told: dict[str, Any]
) -> None:
    """Writes tried.csv and tried.png, for who searched and for nobody else."""
    if not trials:
        return
    rows = [{"score": scores[t.number], **t.settings} for t in trials]
    table = pd.DataFrame(rows).sort_values("score", ascending=False, kind="stable")
    names = [name for name in told["space"] if name in table]
    table = table[["score", *names]].replace(-np.inf, np.nan)
    files.write_table(folder.tried, table)
    files.write_bytes(folder.plot, plot_of_tried(table, told["score"]))


def _validation(settings: Settings, folder: RunFolder, dataset: Dataset) -> pd.DataFrame:
    """Predictions of validation rows by the last parameters, their average where one is kept."""
    stage, state = trained_assembly(settings, folder)
    method, frozen = stage.method, jax.device_get(stage.frozen)
    rows = evaluated_rows(dataset, method)
    rows = rows[rows["split"] == "validation"].reset_index(drop=True)
    params = jax.device_get(averaged_params(state.params, state.opt_state))
    distinct = np.unique(rows["row"])
    scores = score_rows(method, params, frozen, dataset, distinct, progress=False)
    scores.pop("maps", None)
    return predictions_table(dataset, rows, scores)


def _mean_auroc(table: pd.DataFrame) -> float | None:
    found = [auroc(part["y_true"], part["y_score"]) for _, part in table.groupby("task")]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _noisy(table: pd.DataFrame, secret: Secret, noise_multiplier: float, number: int) -> float:
    unit, _ = pd.factorize(table["patient_id"])
    values = (table[name].to_numpy(float) for name in ("y_true", "y_score"))
    return noisy_score(unit_scores(unit, *values), noise_multiplier, secret, number)
