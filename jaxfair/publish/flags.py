"""The flags `--release.*` of evaluate."""

import pathlib
from typing import Any

from jaxfair.cli import Flag, Line
from jaxfair.errors import InputError
from jaxfair.publish.asking import Asked
from jaxfair.publish.release import run
from jaxfair.run.folder import RunFolder

__all__ = ["FLAGS", "asks_release", "release_command"]

FLAGS = (
    Flag("release.epsilon", float, None, "write tables that may be published, at this epsilon"),
    Flag("release.bins", int, 5, "bins of the score"),
    Flag("release.attributes", list, ["sex", "age_group"], "whose groups are told"),
    Flag("release.values", list, [], "groups of other attributes, as NAME=VALUE|VALUE"),
    Flag(
        "release.range", list, ["0", "1"], "where scores may lie, known without looking: LOW,HIGH"
    ),
    Flag("release.minimum", float, 50.0, "noisy patients that a group needs to be shown"),
    Flag("release.budget", float, None, "epsilon of all releases about these people together"),
    Flag("release.ledger", str, None, "ledger of those releases; share it between runs"),
    Flag("release.public_size", int, None, "declared number of evaluated patients"),
)


def asks_release(line: Line) -> bool:
    """Whether the line asks for a release; raises InputError for its flags without an epsilon."""
    given = {name for name in line.given if name.startswith("release.")}
    if given and line.flags["release.epsilon"] is None:
        raise InputError(f"--{min(given)} goes with a release: give --release.epsilon too.")
    return bool(given)


def release_command(line: Line) -> int:
    """Releases the evaluation of `--workdir`; returns exit status 0."""
    if line.config is not None or {"labels", "with-images"} & line.given:
        raise InputError(
            "A release is of the run's own predictions: give --workdir, --out and --release.* only."
        )
    flags = {name.removeprefix("release."): value for name, value in line.flags.items()}
    asked = asked_from_flags(flags)
    folder = RunFolder(pathlib.Path(flags["workdir"]))
    if not folder.path.is_dir():
        raise InputError(f"{folder.path} holds no run; train one first.")
    print(f"May be published: {run(folder, asked, out=flags['out'], ledger=flags['ledger'])}")
    return 0


def asked_from_flags(flags: dict[str, Any]) -> Asked:
    """Returns what a line asks for; raises InputError for words that cannot be read."""
    try:
        low, high = (float(word) for word in flags["range"])
    except ValueError as error:
        raise InputError(f"--release.range is {flags['range']}; it takes LOW,HIGH.") from error
    pairs = [word.partition("=") for word in flags["values"]]
    if not all(name and given for name, _, given in pairs):
        raise InputError(f"--release.values is {flags['values']}; it takes NAME=VALUE|VALUE.")
    values = {name: tuple(map(str.strip, given.split("|"))) for name, _, given in pairs}
    if len(values) < len(pairs):
        raise InputError(
            f"--release.values is {flags['values']}; name each attribute once, all its values with "
            "it as NAME=VALUE|VALUE."
        )
    return Asked(
        epsilon=flags["epsilon"],
        bins=flags["bins"],
        attributes=tuple(flags["attributes"]),
        values=values,
        low=low,
        high=high,
        minimum=flags["minimum"],
        budget=flags["budget"],
        public_size=flags["public_size"],
    )
