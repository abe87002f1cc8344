"""Writes a trained run as one file that scores images without the run.

    jaxfair export RUN --out model.jaxfair
    jaxfair export RUN --out model.jaxfair --in-house

The file holds what the guarantee covers (the parameters, the program that scores with them, how
images are prepared, privacy.json) and a model card. Thresholds, performance by group and counts
come from validation and test patients, whom it does not cover: they are in the file of a PHANTOM
run, and of others with --in-house, which is then not for publication. A run on patients without
privacy has an in-house file alone. The claim is verified before, and the program is compared with
the run's predictions where its data are there.
"""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import Settings, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.errors import InputError
from jaxfair.export.about import (
    Trained,
    about_run,
    first_lines,
    holds_evaluation,
    trained_network,
)
from jaxfair.export.compare import check_scores
from jaxfair.files import read_json
from jaxfair.files import whole as whole_file
from jaxfair.model_file import evaluation
from jaxfair.model_file.card import card_from_parts
from jaxfair.model_file.container import is_model_file, packed, write_json_part
from jaxfair.model_file.function import exported, named_leaves
from jaxfair.model_file.model import EVALUATION, Model, load_model
from jaxfair.model_file.tensors import tensors_to_bytes
from jaxfair.privacy.verify import verify_run
from jaxfair.report.loading import load_run
from jaxfair.report.words import LIMITS
from jaxfair.run.folder import RunFolder
from jaxfair.site import config_of_run
from jaxfair.start import open_data

__all__ = ["COMMAND", "INTENDED", "main", "run"]

INTENDED = "Research on images like those of its training."

RANGED = 2000
"""Validation images of which ranges are told, at most."""


def run(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    in_house: bool = False,
    intended: str = INTENDED,
    progress: bool = True,
) -> Model:
    """Writes the model file `out`, whole or not at all, and returns it read back.

    Args:
      workdir: a trained run.
      out: the file.
      in_house: with thresholds, performance, counts and ranges of images.
      intended: what it is for, a sentence of the card.
      progress: draws a bar where data are opened.

    Guarantee: without `in_house`, a file of patients holds functions of the parameters, of the
    config and of privacy.json alone (protocol P7).

    Raises:
      InputError: `out` is a file that is no model file, the run is not trained, its claim does not
        hold, it was not private and is not asked for `in_house`, or the program gives other scores
        than the run did.
    """
    if pathlib.Path(out).is_file() and not is_model_file(out):
        raise InputError(f"{out} is there and is no model file: name another with --out.")
    folder = RunFolder(pathlib.Path(workdir))
    settings = settings_from_config(config_of_run(folder))
    with folder.read():
        privacy = _claim(folder)
        whole = holds_evaluation(privacy, in_house)
        trained = trained_network(settings, folder)
        dataset = _data_of(settings, progress) if whole else None
        found = _evaluation(settings, folder, dataset) if whole else {}
        about = about_run(settings, trained, privacy, intended, whole)
        parts = _parts(trained, about, privacy, found, first_lines(folder, privacy, about))
        with whole_file(out) as draft:
            draft.write_bytes(packed(parts))
            model = load_model(draft)
            if dataset is not None:
                check_scores(model, dataset, pd.read_parquet(folder.predictions))
    return model


def _claim(folder: RunFolder) -> dict[str, Any]:
    if not folder.trained():
        raise InputError(f"{folder.path} has no privacy.json: it is not trained to its end.")
    faults = verify_run(folder.path)
    if faults:
        raise InputError(
            f"The claim of {folder.path} does not hold ({faults[0]}), and a model is exported with "
            "its claim; see jaxfair account --verify."
        )
    return read_json(folder.privacy)


def _data_of(settings: Settings, progress: bool) -> Dataset | None:
    """The run's data, or None where they have gone."""
    try:
        return open_data(settings, progress=progress)
    except InputError as error:
        print(f"Without ranges of images, and not compared with the run: {error}", file=sys.stderr)
        return None


def _evaluation(settings: Settings, folder: RunFolder, dataset: Dataset | None) -> dict[str, Any]:
    if not (folder.predictions.is_file() and folder.thresholds.is_file()):
        raise InputError(
            f"{folder.path} was not evaluated: run jaxfair evaluate --workdir={folder.path} first."
        )
    read = load_run(folder.path)
    pixels = [] if dataset is None else dataset.pixels[dataset.rows("validation")[:RANGED]]
    return {
        "thresholds": evaluation.thresholds(read.thresholds),
        "performance": evaluation.performance(read.fairness, read.predictions),
        "people": evaluation.people(
            read.predictions, [n for n in settings.data.attributes if n in read.predictions]
        ),
        "ranges": evaluation.ranges(np.asarray(pixels)),
    }


def _parts(
    trained: Trained,
    about: dict[str, Any],
    privacy: dict[str, Any],
    found: dict[str, Any],
    statement: Sequence[str],
) -> dict[str, bytes]:
    leaves = named_leaves(trained.params, trained.frozen)
    card = card_from_parts(about, privacy, found, statement=statement, limits=LIMITS)
    parts = {
        "model.json": write_json_part(about),
        "privacy.json": write_json_part(privacy),
        "card.md": card.encode(),
        "parameters.safetensors": tensors_to_bytes(leaves),
        "score.stablehlo": exported(trained.method, trained.params, trained.frozen, trained.spec),
    }
    return parts | ({EVALUATION: write_json_part(found)} if found else {})


COMMAND = Command(
    name="export",
    about=__doc__,
    words="RUN",
    flags=(
        Flag("out", str, "model.jaxfair", "the file to write"),
        Flag("in-house", bool, False, "with figures of validation and test patients"),
        Flag("intended", str, INTENDED, "what the model is for, a sentence of its card"),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Exports a run; returns the exit status: 0, or 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    if len(line.words) != 1:
        raise InputError("Which run? Give one run folder: jaxfair export RUN --out FILE.")
    out, flags = line.flags["out"], line.flags
    model = run(line.words[0], out, in_house=flags["in-house"], intended=flags["intended"])
    size = os.stat(out).st_size / 2**20
    print(f"{out}: {size:.1f} MB, sha256 {model.digest}. {model.about['passing_on']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
