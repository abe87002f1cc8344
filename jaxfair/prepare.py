"""Decodes the files of a data set once.

    jaxfair prepare --source rsna --root DIR --out DIR
    jaxfair prepare --config table_resnet --config.data.root=DIR

Sources whose columns have to be named, and every option of the data, come from a config.
"""

import dataclasses
import sys
from collections.abc import Sequence

from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import sections, settings_from_config
from jaxfair.data.card import unknown_lines
from jaxfair.data.config import DataConfig, make_data_config
from jaxfair.data.dataset import Dataset, open_dataset
from jaxfair.errors import InputError
from jaxfair.phantom.write import ready
from jaxfair.schema import PHANTOM, SPLITS

__all__ = ["COMMAND", "main", "run"]


def run(config: DataConfig, *, progress: bool = True) -> Dataset:
    """Prepares what `config` names, unless it is there already, and returns it opened.

    Raises:
      InputError: as `open_dataset`.
    """
    return open_dataset(config, progress=progress)


_ALONE = {"source": "source", "root": "root", "out": "prepared", "image_size": "image_size"}
"""Flags of a line without a config, and their fields of `config.data`."""

COMMAND = Command(
    name="prepare",
    about=__doc__,
    flags=(
        Flag("source", str, "rsna", "which layout the files have; without a config"),
        Flag("root", str, None, "folder of the source, else JAXFAIR_DATA; without a config"),
        Flag("out", str, None, "folder to write, else beside root"),
        Flag("image_size", int, 128, "side of the square images; without a config"),
        Flag("progress", bool, True, "draw a progress bar"),
    ),
    sections=sections,
    needs_config=False,
)


def main(argv: Sequence[str]) -> int:
    """The command; `argv[0]` is the program's name. Returns the exit status, 2 for bad input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    config = _from_flags(line) if line.config is None else _from_config(line)
    print("\n".join(_summary(config, run(config, progress=line.flags["progress"]))))
    return 0


def _from_config(line: Line) -> DataConfig:
    """The data of --config FILE and overrides of it, its phantom drawn."""
    for name, field in _ALONE.items():
        if name in line.given and name != "out":
            raise InputError(f"--{name} is for a line without --config: use --config.data.{field}.")
    settings = settings_from_config(line.config)
    config = ready(settings.phantom, settings.data, progress=line.flags["progress"])
    return dataclasses.replace(config, prepared=line.flags["out"] or config.prepared)


def _from_flags(line: Line) -> DataConfig:
    return make_data_config(**{field: line.flags[name] for name, field in _ALONE.items()})


def _summary(config: DataConfig, dataset: Dataset) -> list[str]:
    """What a person wants to know at the end; about patients, so for the terminal only."""
    card, splits = dataset.card, dataset.manifest["split"]
    name = f"{'PHANTOM ' if dataset.data == PHANTOM else ''}{config.source}"
    known = "patients known" if dataset.unit == "patient" else "patients unknown"
    unit = known if dataset.unit == "patient" else f"{known}, unit is the {dataset.unit}"
    lines = [f"{name}: {len(dataset)} images of {card['patients']} units ({unit})"]
    lines.append(", ".join(f"{s} {int((splits == s).sum())}" for s in SPLITS))
    lines.append(f"left out (no label in this task, or another view): {int((splits == '').sum())}")
    lines.append(f"set aside: {card['rejected']['total']}")
    lines += [f"  {n} x {reason}" for reason, n in card["rejected"]["by_reason"].items()]
    lines += unknown_lines(dataset.manifest, config.attributes, card.get("unread", {}))
    return lines + [f"written: {dataset.folder}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
