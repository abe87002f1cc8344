"""Writes `release/`: tables by subgroup under a guarantee for each evaluated patient.

Predictions of a run become noisy histograms (jaxfair/privacy/histogram.py, which is the proof), and
those become everything else. The folder holds tables.csv, histograms.csv, index.html and
statement.json, and nothing else; it appears whole, after the ledger beside it was paid.
"""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from jaxfair import files
from jaxfair.errors import InputError
from jaxfair.fairness.groups import ALL, OVERALL
from jaxfair.fairness.noisy import noisy_table
from jaxfair.privacy.histogram import open_answers, price
from jaxfair.privacy.ledger import BudgetExceeded, Ledger
from jaxfair.privacy.public import delta_from_public_size
from jaxfair.privacy.publication import LEDGER, STATEMENT, statement_of_release
from jaxfair.privacy.secret import Secret, os_secret
from jaxfair.publish.asking import Asked, Histogram, asked_of, people_of, questions
from jaxfair.publish.evaluation import evaluation_of
from jaxfair.publish.page import page
from jaxfair.run.folder import RunFolder

__all__ = ["histogram_rows", "run", "tables"]

_DIGITS = 10_000


def run(
    folder: RunFolder,
    asked: Asked,
    *,
    out: str | os.PathLike[str] | None = None,
    ledger: str | os.PathLike[str] | None = None,
    secret: Secret | None = None,
) -> pathlib.Path:
    """Releases the evaluation of a run once, and returns the folder that may be published.

    Args:
      folder: of the run, which has been evaluated.
      out: the folder to write; `release` in the run where it is left out.
      ledger: of all releases about these people; in the run where it is left out. Releases of
        several runs about the same people add up where they share it.
      secret: for tests and research; from the operating system, and kept nowhere, where left out.

    Raises InputError as `evaluation_of`, and where the folder is there, and BudgetExceeded
    where this release and those before exceed the budget.
    """
    target = pathlib.Path(out) if out else folder.path / "release"
    if target.exists():
        raise InputError(f"{target} is there: a release is made once; name another with --out.")
    secret = secret or os_secret()
    with folder.locked():
        given = evaluation_of(folder, asked)
        delta = delta_from_public_size(given.public_size)
        cost = price(asked.epsilon, delta, questions(asked, given.tasks))
        budget = asked.epsilon if asked.budget is None else asked.budget
        draft = target.with_name(f".{target.name}.part")
        with (
            _made(draft, target) as cut_off,
            _alone(pathlib.Path(ledger or folder.path / LEDGER)) as path,
        ):
            books = Ledger(path, budget=budget, delta=delta)
            with _lost_is_said(books, target if cut_off else None):
                answers = open_answers(cost, books, secret, people_of(given.rows))
        found = {task: asked_of(answers, asked, given.rows, task) for task in given.tasks}
        shown = tables(found, minimum=asked.minimum)
        state = lambda: statement_of_release(
            cost, books, secret.source, given.privacy, draft, minimum=asked.minimum
        )
        with _failure_is_said(target):
            files.write_table(draft / "histograms.csv", histogram_rows(found))
            files.write_table(draft / "tables.csv", shown)
            files.write_text(draft / "index.html", page(shown, found, state()))
            files.write_json(draft / STATEMENT, state())
            os.replace(draft, target)
    return target


def tables(found: dict[str, dict[str, Histogram]], *, minimum: float) -> pd.DataFrame:
    """Returns the rows of tables.csv: values rounded, intervals rounded outwards.

    Everybody (`overall`, `all`) is the sum of the groups of the attribute with the fewest.
    """
    parts = []
    for task, histograms in found.items():
        fewest = min(histograms.values(), key=lambda h: len(h.groups))
        everybody = fewest._replace(
            counts=fewest.counts.sum(0, keepdims=True),
            noise=fewest.noise * len(fewest.groups),
            groups=(ALL,),
        )
        for attribute, h in {OVERALL: everybody, **histograms}.items():
            table = noisy_table(h.counts, h.noise, h.groups, at=h.at, minimum=minimum)
            table.insert(0, "attribute", attribute)
            table.insert(0, "task", task)
            parts.append(table)
    return _rounded(pd.concat(parts, ignore_index=True))


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    table["ci_low"] = np.floor(table["ci_low"] * _DIGITS) / _DIGITS
    for name in ("ci_high", "noise_sd"):
        table[name] = np.ceil(table[name] * _DIGITS) / _DIGITS
    for name in ("value", "correction"):
        table[name] = table[name].round(4)
    for name in ("patients", "noise_sd_patients"):
        table[name] = table[name].round(1)
    return table


@contextlib.contextmanager
def _alone(ledger: pathlib.Path) -> Iterator[pathlib.Path]:
    """Holds a ledger that runs may share from its reading to the payment; others wait."""
    lock = ledger.with_name(f".{ledger.name}.lock")
    try:
        lock.touch()
    except OSError as error:
        raise InputError(
            f"The ledger {ledger} cannot be written ({error.strerror}); name another with "
            "--release.ledger. Nothing was paid."
        ) from error
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield ledger


@contextlib.contextmanager
def _made(draft: pathlib.Path, target: pathlib.Path) -> Iterator[bool]:
    """Makes an empty folder before anything is paid, and yields whether one was left there.

    One that is left is of a release that was cut off. It stays if this one is refused. Raises
    InputError where none can be made.
    """
    left = draft.is_dir()
    try:
        draft.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}); name another with --out. Nothing was "
            "paid."
        ) from error
    try:
        yield left
    except Exception:
        if not left:
            draft.rmdir()
        raise
    with _failure_is_said(target):
        for path in draft.iterdir():
            path.unlink()


@contextlib.contextmanager
def _lost_is_said(books: Ledger, cut_off: pathlib.Path | None) -> Iterator[None]:
    """Adds to a refusal for want of budget what was paid before, and may have been lost.

    Args:
      cut_off: the folder of a release that is known to have been cut off.
    """
    try:
        yield
    except BudgetExceeded as error:
        lost = "one that was cut off before its folder was there stays paid, with its answers lost"
        if cut_off is not None:
            lost = f"one into {cut_off} was cut off, so that what it had paid for is lost"
        count = f"{len(books)} release{'s' * (len(books) != 1)}"
        raise BudgetExceeded(
            f"{str(error).removesuffix('.')}; {books.path} has paid for {count} before, and {lost}."
        ) from error


@contextlib.contextmanager
def _failure_is_said(target: pathlib.Path) -> Iterator[None]:
    """Says of a disk that fails the files of a paid release what that cost."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}), and its release was paid for: its "
            "answers are lost, and another needs a higher --release.budget."
        ) from error


def histogram_rows(found: dict[str, dict[str, Histogram]]) -> pd.DataFrame:
    """Returns the rows of histograms.csv, one for each noisy count.

    A bin holds scores from `low` up to and without `high`. `noise_sd` is the deviation of its
    noise, `noise_next` the covariance of that with the noise of the next bin of its group and
    label. All other noise is uncorrelated.
    """
    rows: list[dict[str, Any]] = []
    for task, histograms in found.items():
        for attribute, h in histograms.items():
            low, high = [np.nan, *h.edges], [*h.edges, np.nan]
            sd, following = np.diag(h.noise) ** 0.5, [*np.diag(h.noise, 1), np.nan]
            for (group, label, place), mass in np.ndenumerate(h.counts):
                rows.append({
                    "task": task, "attribute": attribute, "group": h.groups[group],
                    "label": label, "bin": place, "low": low[place], "high": high[place],
                    "positive": place >= h.at, "patients": mass,
                    "noise_sd": sd[place], "noise_next": following[place],
                })  # fmt: skip
    return pd.DataFrame(rows)
