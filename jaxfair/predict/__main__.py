"""Scores files of patients by a model file: a research tool, not for diagnosis.

    jaxfair predict MODEL INPUT ... --out DIR
    jaxfair predict MODEL cases.csv --columns image=Path,sex=Sex --out DIR
    jaxfair predict MODEL inbox/ --out DIR --watch

An input is an image or a volume, a folder of them, a folder of DICOM slices, or a table with paths
(and sex, age, view, patient and the model's attributes, where it has them). DIR gets
predictions.parquet, .csv and .json with a row for each case and label: score, decision and whose
threshold decided, and what is unusual; rejected.csv with what could not be read and why; maps/;
and index.html with the highest scores. Files are read by the functions that the training read by.
With --dicom each DICOM case gets its map as DICOM too, in dicom/, filed under the same patient and
study: an overlay in colour, and the numbers as a parametric map. They are as identifying as the
input.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence

from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError
from jaxfair.model_file.model import Model, load_model
from jaxfair.predict.cases import COLUMNS, cases_of
from jaxfair.predict.judged import AUTO
from jaxfair.predict.scoring import LIMITS, Session, in_our_words, run
from jaxfair.predict.watching import watch
from jaxfair.schema import CAUTION

__all__ = ["COMMAND", "main"]

COMMAND = Command(
    name="predict",
    about=__doc__,
    words="MODEL INPUT",
    flags=(
        Flag("out", str, None, "folder for all that is written"),
        Flag("columns", list, [], "columns of tables, as image=Path,sex=Sex"),
        Flag("rule", str, "youden", "rule of the stored thresholds that decide"),
        Flag("by", str, AUTO, "attribute whose thresholds decide; 'pooled' for one for all"),
        Flag("maps", bool, True, "write anomaly maps, where the model has them"),
        Flag("dicom", bool, False, "maps of DICOM cases as DICOM too; they name the patient"),
        Flag("max-megabytes", int, None, "largest file to read, unpacked; None as in training"),
        Flag("max-seconds", float, None, "how long a file may take; None as in training"),
        Flag("sha256", str, None, "digest that the model file must have"),
        Flag("watch", bool, False, "go on until Ctrl-C, and score what comes into the folders"),
        Flag("every", float, 5.0, "seconds between two looks of --watch"),
    ),
)


def main(argv: Sequence[str]) -> int:
    """Predicts; returns the exit status: 0, or 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    flags = line.flags
    if len(line.words) < 2 or not flags["out"]:
        raise InputError(
            "Give a model, inputs and a folder: jaxfair predict MODEL INPUT --out DIR."
        )
    model, out = load_model(line.words[0], sha256=flags["sha256"]), pathlib.Path(flags["out"])
    model = _limited(model, {field: flags[flag] for field, flag in LIMITS.items()})
    columns, inputs = _pairs(flags["columns"], model), line.words[1:]
    _check_apart(inputs, out)
    choices = {name: flags[name] for name in ("rule", "by", "maps", "dicom")}
    print(CAUTION, file=sys.stderr)
    if flags["watch"]:
        session = watch(model, inputs, out, columns=columns, every=flags["every"], **choices)
    else:
        cases = cases_of(inputs, model.about["images"]["kind"], model.groups, columns)
        session = run(model, cases, out, **choices)
    print(f"{_told(session, out, flags['dicom'])} {CAUTION}")
    return 0


def _told(session: Session, out: pathlib.Path, dicom: bool) -> str:
    """What came of it, in a sentence or two."""
    scored = {row["image_id"]: row["dicom"] for row in session.rows}
    seen = f"; see {out / 'index.html'}" * bool(session.rows or session.aside)
    told = f"{len(scored)} cases scored, {len(session.aside)} set aside{seen}."
    if dicom:
        bare = sum(not place for place in scored.values())
        told += f" {len(scored) - bare} with a DICOM map, which names the patient"
        told += f"; {bare} are no DICOM or cannot be filed, see their notes." * bool(bare) or "."
    return told


def _limited(model: Model, limits: Mapping[str, float | None]) -> Model:
    """The model, with other limits of files than those of its training where some are given."""
    images = model.about["images"]
    stored = images["stored"] | {n: limit for n, limit in limits.items() if limit is not None}
    try:
        Stored(**stored)
    except InputError as error:
        raise InputError(in_our_words(str(error))) from error
    return dataclasses.replace(model, about=model.about | {"images": images | {"stored": stored}})


def _check_apart(inputs: Sequence[str], out: pathlib.Path) -> None:
    """Refuses to write where it reads: maps would be taken for films."""
    for given in inputs:
        if pathlib.Path(given).resolve() in (out.resolve(), *out.resolve().parents):
            raise InputError(f"--out is {out}, in the input {given}: name a folder outside of it.")


def _pairs(words: Sequence[str], model: Model) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    known = [*COLUMNS, *model.groups]
    for what, equal, column in pairs:
        if not (equal and column and what in known):
            raise InputError(
                f"--columns has {what + equal + column!r}; it takes WHAT=COLUMN, WHAT one of "
                f"{', '.join(dict.fromkeys(known))}."
            )
    return {what: column for what, _, column in pairs}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
