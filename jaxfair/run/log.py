"""What a run says while it works: metrics.jsonl, env.json and the progress line. No jax."""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import tqdm

from jaxfair import files
from jaxfair.privacy import release

__all__ = ["Board", "MetricsLog", "environment", "progress_bar"]

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "dp-accounting",
    "orbax-checkpoint",
    "numpy",
    "pandas",
)


_FLUSH_SECONDS = 10


class Board:
    """TensorBoard event files of a run, beside metrics.jsonl and never instead of it.

    What the guarantee of a private run does not cover stands under `not_covered_by_guarantee/`.
    Only what `privacy.release` lists is written. The points of a private run carry their step for
    a time: the time between two steps tells how many units there are.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, private: bool, after_step: int | None = None
    ) -> None:
        """Opens the folder; points after `after_step`, of a run that resumes there, are hidden."""
        from tensorboardX import SummaryWriter  # an extra: pip install "jaxfair[tensorboard]"

        purge = None if after_step is None else after_step + 1
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=_FLUSH_SECONDS)
        self._private = private

    def write(self, step: int, values: Mapping[str, float | None], *, covered: bool) -> None:
        """Adds a point to each curve; None adds none.

        Args:
          covered: False for what the guarantee does not cover, as evaluation on patients.

        Raises ReleaseError for a value that is not on the list of the board.
        """
        values = release.allowed("board" if covered else "evaluation", values)
        marked = self._private and not covered
        group = "not_covered_by_guarantee" if marked else "run"
        for name, value in values.items():
            if value is not None:
                clock = float(step) if self._private else None
                self._writer.add_scalar(f"{group}/{name}", value, step, walltime=clock)

    def close(self) -> None:
        """Writes what is still pending."""
        self._writer.close()


class MetricsLog:
    """`metrics.jsonl` of a run, one line a logged step.

    It holds the step, epsilon and functions of the noisy mean or the parameters, and nothing
    else: what `privacy.release` lists (protocol P7).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        after_step: int,
        writes: bool = True,
        board: Board | None = None,
    ) -> None:
        """Opens the log and drops the lines that a resumed run will write again.

        With several hosts one of them `writes`. A `board` shows the same values.
        """
        self._path, self._writes, self._board = pathlib.Path(path), writes, board
        if not writes:
            return
        kept = [line for line in _lines(self._path) if json.loads(line)["step"] <= after_step]
        files.write_text(self._path, "".join(f"{line}\n" for line in kept))

    def write(self, step: int, **values: float | None) -> None:
        """Appends one line; values are scalars, null where undefined.

        Raises ReleaseError for a value that is not on the list of metrics.jsonl.
        """
        line = release.allowed("metrics.jsonl", {"step": step, **values})
        if not self._writes:
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
        if self._board is not None:
            self._board.write(step, values, covered=True)

    def close(self) -> None:
        """Closes the board; the log itself is whole after every line."""
        if self._board is not None:
            self._board.close()


class _Bar(tqdm.tqdm):
    """A progress bar that says nothing but what `release.line` made."""

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Shows `s` behind the bar. Raises ReleaseError for text of unknown origin."""
        super().set_postfix_str(_released(s), refresh)

    def set_postfix(
        self, ordered_dict: Any = None, refresh: bool | None = True, **kwargs: Any
    ) -> None:
        """Shows names and values. Raises ReleaseError for what is not on the list of progress."""
        values = release.allowed("progress", {**(ordered_dict or {}), **kwargs})
        super().set_postfix(values, refresh)

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Shows `desc` before the bar. Raises ReleaseError for text of unknown origin."""
        super().set_description(_released(desc or release.line("")), refresh)


def _released(text: str) -> str:
    if not isinstance(text, release.Line):
        raise release.ReleaseError(
            f"The progress line was to show {text!r}, and nobody said what it is made of: make it "
            "by privacy.release.line, of the names that PROGRESS in jaxfair/privacy/release.py "
            "lists."
        )
    return text


def progress_bar(
    total: int,
    *,
    what: str,
    initial: int = 0,
    unit: str = "step",
    counted: bool = True,
    hidden: bool = False,
) -> tqdm.tqdm:
    """Returns a progress bar with rate and time left, on standard error.

    Args:
      total: what 100 % are.
      what: the text before the bar.
      initial: where it begins.
      unit: what is counted.
      counted: False shows neither total nor rate, only the share and the time left.
      hidden: show nothing.

    It is for the person at the machine and stands in no file. What is shown behind it has to
    come from `release.line`, else it raises ReleaseError.
    """
    form = None if counted else "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    return _Bar(
        total=total, initial=initial, desc=what, unit=unit, dynamic_ncols=True, disable=hidden,
        bar_format=form,
    )  # fmt: skip


def environment(devices: list[str]) -> dict[str, Any]:
    """Returns what env.json holds: versions, devices, usable cores and the commit."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        "versions": versions,
        "devices": devices,
        "usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "machine": platform.machine(),
        "commit": _commit(),
        "command": [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _commit() -> str | None:
    """The commit of the checkout that this file lies in, with a mark for local changes."""
    root = pathlib.Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _lines(path: pathlib.Path) -> list[str]:
    content = path.read_text(encoding="utf-8") if path.exists() else ""
    return content[: content.rfind("\n") + 1].splitlines()
