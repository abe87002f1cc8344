"""Decodes a dataset once: python -m jaxfair.prepare --source rsna --root DIR --out DIR.

Sources whose columns have to be named, and every option of the data, come from a config:
python -m jaxfair.prepare --config configs/table_resnet.py --config.data.root=DIR
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import flags

from jaxfair.config import parse_command, settings_from_config
from jaxfair.data.config import DataConfig, make_data_config
from jaxfair.data.dataset import Dataset, open_dataset
from jaxfair.errors import InputError
from jaxfair.phantom.write import ready
from jaxfair.schema import PHANTOM, SPLITS

__all__ = ["main", "run"]


def run(config: DataConfig, *, progress: bool = True) -> Dataset:
    """Prepares what `config` names, unless it is there already, and returns it opened.

    Raises:
      InputError: as `open_dataset`.
    """
    return open_dataset(config, progress=progress)


def main(argv: Sequence[str]) -> int:
    """The command; `argv[0]` is the program's name. Returns the exit status, 2 for bad input."""
    if any(argument.startswith(("--config", "-config")) for argument in argv[1:]):
        return _from_config(argv)
    values = _flags()
    try:
        rest = values(list(argv))[1:]
        if values.help:
            print(f"{__doc__}\n{values.get_help()}")
            return 0
        if rest:
            raise InputError(f"prepare takes no argument {rest[0]!r}; options start with --.")
        config = make_data_config(
            source=values.source,
            root=values.root,
            prepared=values.out,
            image_size=values.image_size,
        )
        print("\n".join(_summary(config, run(config, progress=values.progress))))
    except (InputError, flags.Error) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _from_config(argv: Sequence[str]) -> int:
    """The command with --config FILE and overrides of it."""
    try:
        tree, values = parse_command(argv, _define_flags)
        settings = settings_from_config(tree)
        config = ready(settings.phantom, settings.data, progress=values.progress)
        config = dataclasses.replace(config, prepared=values.out or config.prepared)
        print("\n".join(_summary(config, run(config, progress=values.progress))))
    except (InputError, flags.Error) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("progress", True, "draw a progress bar", flag_values=values)
    flags.DEFINE_string("out", None, "folder to write; else beside root", flag_values=values)


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    _define_flags(values)
    flags.DEFINE_string("config", None, "a config's data instead of these", flag_values=values)
    flags.DEFINE_string("source", "rsna", "which layout the files have", flag_values=values)
    flags.DEFINE_string("root", None, "folder of the source; else JAXFAIR_DATA", flag_values=values)
    flags.DEFINE_integer("image_size", 128, "side of the square images", flag_values=values)
    flags.DEFINE_bool("help", False, "show this text", short_name="h", flag_values=values)
    return values


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
    return lines + [f"written: {dataset.folder}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
