"""The runs of a study of gaps: each is trained once, timed, and its promise checked.

    out/runs/DATA/METHOD/ARM/...     a folder per run
    out/refused/..., out/seconds/..., out/verified/...   what was said of each

A run that is done is not done again, and several processes of one command share the runs. What a
mitigation or a Method refuses is no error of the study: the sentence is kept and stands in the
tables. Seconds lie outside the run folders, which hold nothing that depends on how many people
there are (protocol P16).
"""

import contextlib
import fcntl
import itertools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd
from ml_collections import ConfigDict

from experiments.arms.train import CORRELATED, predictions_of, predictions_path, run_cell
from experiments.gaps.levels import Nulls
from jaxfair import files
from jaxfair.engine.trainer import Trainer
from jaxfair.errors import InputError
from jaxfair.privacy.verify import check_run
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import progress_bar

__all__ = [
    "Kept",
    "Run",
    "claimed",
    "folder_of",
    "kept_nulls",
    "kept_of",
    "predictions",
    "train_runs",
]


class Run(NamedTuple):
    """One training and what it is called by.

    Attributes:
      data: on what, a word without "/".
      method: key of METHODS.
      arm: how; "plain" is the Method alone.
      setting: which of the arm's settings.
      epsilon: inf is without privacy.
      split: which division of the people.
      seed: of the training.
      config: of all this.
    """

    data: str
    method: str
    arm: str
    setting: int
    epsilon: float
    split: int
    seed: int
    config: ConfigDict

    @property
    def place(self) -> str:
        """Its folder: DATA/METHOD/ARM/setting-0/epsilon-8/split-1/seed-1."""
        return (
            f"{self.data}/{self.method}/{self.arm}/setting-{self.setting}/epsilon-"
            f"{self.epsilon:g}/split-{self.split}/seed-{self.seed}"
        )


class Kept(NamedTuple):
    """What is known of a run.

    Attributes:
      done: whether its predictions are there.
      refused: the sentence with which it was refused; "" if it was not.
      seconds: of one step, the median of all stretches but the first, in which it is compiled.
      epsilon: that its privacy.json claims; None without privacy.
      faults: what `account --verify` finds; none where all holds.
    """

    done: bool
    refused: str
    seconds: float
    epsilon: float | None
    faults: tuple[str, ...]


def folder_of(out: pathlib.Path, run: Run) -> pathlib.Path:
    """Returns the folder of a run."""
    return out / "runs" / run.place


def train_runs(runs: Sequence[Run], out: pathlib.Path, *, what: str, progress: bool = True) -> None:
    """Trains and scores what is missing of `runs`, in their order, under one progress bar.

    Of several processes that do so each run is of the first that comes to it. The others go on,
    and wait at the end for those that somebody else is at, so that after it all are there.
    """
    with progress_bar(len(runs), what=what, unit="run", hidden=not progress) as bar:
        others = []
        for run in runs:
            with claimed(out, run.place) as mine:
                if mine:
                    _train(run, out)
            others += [] if mine else [run]
            bar.update(int(mine))
        for run in others:
            with claimed(out, run.place, wait=True):
                if not _beside(out, "refused", run).is_file():
                    _train(run, out)
            bar.update()


@contextlib.contextmanager
def claimed(out: pathlib.Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Gives whether this process has `name` to itself; what a process held that died is free.

    Args:
      wait: until it has.
    """
    path = out / "claims" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def kept_of(out: pathlib.Path, run: Run) -> Kept:
    """Returns what is known of a run; the check of its promise is made once."""
    folder = folder_of(out, run)
    done = predictions_path(folder, CORRELATED).is_file()
    refused, seconds = (_beside(out, name, run) for name in ("refused", "seconds"))
    said = files.read_json(refused)["refused"] if refused.is_file() else ""
    took = files.read_json(seconds)["seconds"] if seconds.is_file() else None
    epsilon, faults = _promise(out, run) if done else (None, ())
    return Kept(done, said, float("nan") if took is None else took, epsilon, faults)


def predictions(out: pathlib.Path, run: Run, split: str = "test") -> pd.DataFrame:
    """Returns the predictions of a run on its test images, or on those of another split."""
    rows = predictions_of(folder_of(out, run), CORRELATED)
    rows = rows[rows["split"] == split].sort_values(["task", "image_id"])
    return rows.reset_index(drop=True)


def kept_nulls(
    out: pathlib.Path, runs: Sequence[Run], name: str, make: Callable[[], Nulls]
) -> Nulls:
    """Returns what `make` finds of the seeds `runs`; once for all, as permutations take time.

    Args:
      name: of what is found, where there are several of the same runs.
    """
    seeds = "-".join(str(run.seed) for run in runs)
    path = out / "nulls" / pathlib.Path(runs[0].place).parent / f"{name}seeds-{seeds}.json"
    if not path.is_file():
        files.write_text(path, json.dumps(make()))
    return Nulls(*json.loads(path.read_text(encoding="utf-8")))


def _train(run: Run, out: pathlib.Path) -> None:
    times: list[tuple[int, float]] = []
    refused = _beside(out, "refused", run)
    try:
        run_cell(run.config, folder_of(out, run), {}, lambda trainer: _timed(trainer, times))
    except InputError as error:
        files.write_json(refused, {"refused": str(error)})
        return
    refused.unlink(missing_ok=True)
    if times:
        files.write_json(_beside(out, "seconds", run), {"seconds": _median(times)})


def _timed(trainer: Trainer, times: list[tuple[int, float]]) -> None:
    """Trains to the end and notes when each stretch of steps was over."""
    times.append((trainer.step, time.perf_counter()))
    with trainer:
        for released in trainer.steps():
            times.append((released.step, time.perf_counter()))


def _median(times: list[tuple[int, float]]) -> float | None:
    """Seconds a step over the stretches after the first; None where there is no other."""
    stretches = itertools.pairwise(times[1:])
    each = [(then - now) / (end - begin) for (begin, now), (end, then) in stretches]
    return statistics.median(each) if each else None


def _promise(out: pathlib.Path, run: Run) -> tuple[float | None, tuple[str, ...]]:
    if run.epsilon == float("inf"):
        return None, ()
    kept, folder = _beside(out, "verified", run), folder_of(out, run)
    if not kept.is_file():
        epsilon = files.read_json(RunFolder(folder).privacy)["epsilon"]
        files.write_json(kept, {"epsilon": epsilon, "faults": check_run(folder).faults})
    found = files.read_json(kept)
    return found["epsilon"], tuple(found["faults"])


def _beside(out: pathlib.Path, what: str, run: Run) -> pathlib.Path:
    return out / what / f"{run.place}.json"
