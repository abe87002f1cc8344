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

import functools
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.data.pixels import Job
from jaxfair.data.reading import read_files
from jaxfair.errors import InputError
from jaxfair.model_file.model import Model, load_model
from jaxfair.predict import gallery, output, viewers
from jaxfair.predict.cases import COLUMNS, Case, cases_of, shown
from jaxfair.predict.judged import AUTO, check_rule, decided, facts_of, notes_of
from jaxfair.predict.source import read_source
from jaxfair.schema import CAUTION

__all__ = ["COMMAND", "Session", "main", "run", "watch"]

BATCH = 32


def run(
    model: Model,
    cases: Sequence[Case],
    out: pathlib.Path,
    *,
    rule: str = "youden",
    by: str = AUTO,
    maps: bool = True,
    dicom: bool = False,
    progress: bool = True,
    before: "Session | None" = None,
) -> "Session":
    """Scores cases and writes all of DIR; returns what was found.

    Args:
      model: of `load_model`.
      cases: of `cases_of`.
      out: the folder.
      rule, by: which stored threshold decides.
      maps: write anomaly maps, where the model has them.
      dicom: write those of DICOM cases as DICOM too; they name the patient.
      progress: draws a bar with rate and time left.
      before: what an earlier call found, which is written again with the new cases.

    Raises InputError where the model has no such thresholds, or no maps for `dicom`. A file that
    cannot be read is set aside by name, with the reason, and ends nothing.
    """
    check_rule(model, rule, by)
    if dicom and not model.about["maps"]:
        raise InputError("--dicom writes anomaly maps, and this model has none; leave it out.")
    session = before or Session()
    jobs = [Job(case.path, model.stored) for case in cases]
    reader = functools.partial(read_source, model.reader) if dicom else model.reader
    read = read_files(reader, jobs, model.stored, label="predict", progress=progress)
    for batch in _batches(zip(cases, read), session):
        _score(model, batch, out, session, rule=rule, by=by, maps=maps)
    output.write_tables(out, session.rows, session.aside, _about(model, rule, by))
    found = session.highest, len(session.rows), session.aside
    gallery.write(out / "index.html", model, *found, dicom=dicom)
    return session


class Session:
    """What was found so far: rows of predictions, files set aside, and the highest scores."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.aside: list[dict[str, str]] = []
        self.highest = gallery.Highest()
        self.filing = viewers.Filing()


Read = tuple[Case, np.ndarray, Mapping[str, Any]]


def _batches(read: Iterator[Any], session: Session) -> Iterator[list[Read]]:
    """Readable cases, BATCH at a time; the others go aside."""
    batch: list[Read] = []
    for case, (pixels, header) in read:
        if pixels is None:
            told = {"file": pathlib.PurePath(case.path).name, "reason": header["reason"]}
            told = {what: shown(text) for what, text in told.items()}
            session.aside.append({"image_id": case.name, **told})
            continue
        batch.append((case, pixels, header))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _score(
    model: Model,
    batch: list[Read],
    out: pathlib.Path,
    session: Session,
    *,
    rule: str,
    by: str,
    maps: bool,
) -> None:
    pixels = np.stack([one for _, one, _ in batch])
    facts = [facts_of(case, header, model.groups) for case, _, header in batch]
    groups = {name: [fact[name] for fact in facts] for name in model.groups}
    scores = model.score(pixels, groups)
    found = scores.pop("maps", None)
    for i, (case, image, header) in enumerate(batch):
        heat = None if found is None else found[i]
        notes = notes_of(model, facts[i], header, image)
        place = ""
        if maps and heat is not None:
            place = output.map_file(case.name, heat)
            output.write_map(out / place, image, heat, header.get("affine"))
        source = header.get("source", "")
        seen, said = viewers.write_case(out, case.name, source, heat, model, session.filing)
        for task, values in scores.items():
            score = float(values[i])
            chosen = decided(model, task, score, facts[i], rule=rule, by=by)
            row = {
                "image_id": case.name,
                "file": shown(case.path),
                "task": task,
                "score": score,
                "threshold": chosen.threshold,
                "threshold_of": chosen.of,
                "positive": chosen.positive,
                "notes": " ".join([*notes, *said]),
                "map": place,
                "dicom": seen,
            }
            session.rows.append(row | facts[i])
            session.highest.offer(row, image, heat)


def _about(model: Model, rule: str, by: str) -> dict[str, Any]:
    epsilon = model.privacy.get("epsilon")
    return {
        "model": {"name": model.about["name"], "sha256": model.digest, "epsilon": epsilon},
        "rule": rule,
        "by": by,
    }


def watch(
    model: Model,
    inputs: Sequence[str],
    out: pathlib.Path,
    *,
    columns: Mapping[str, str],
    every: float,
    polls: int | None = None,
    **choices: Any,
) -> Session:
    """Scores what comes into folders, until it is interrupted; everything is written each time.

    A file is taken once it has kept its size and time from one look to the next, so that nobody's
    half-written file is read; one that changes later is not taken again.

    Args:
      every: seconds between looks.
      polls: how many looks; None for no end.
      choices: of `run`.
    """
    session, done, last = Session(), set[str](), dict[str, Any]()
    while polls is None or polls > 0:
        now = {case.path: (case, _state(case.path)) for case in _there(model, inputs, columns)}
        still = [case for path, (case, state) in now.items()
                 if path not in done and last.get(path) == state]  # fmt: skip
        if still:
            run(model, still, out, before=session, **choices)
            done |= {case.path for case in still}
        last = {path: state for path, (_, state) in now.items()}
        polls = None if polls is None else polls - 1
        if polls is None or polls > 0:
            time.sleep(every)
    return session


def _there(model: Model, inputs: Sequence[str], columns: Mapping[str, str]) -> list[Case]:
    """The cases, of which there may be none yet."""
    try:
        return cases_of(inputs, model.about["images"]["kind"], model.groups, columns)
    except InputError:
        return []


def _state(path: str) -> Any:
    """Sizes and times of a file, or of all files of a folder."""
    place = pathlib.Path(path)
    inside = sorted(place.iterdir()) if place.is_dir() else [place]
    return [
        (str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in inside if one.exists()
    ]


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
        Flag("sha256", str, None, "digest that the model file must have"),
        Flag("watch", bool, False, "go on, and score what comes into the folders"),
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
    columns, inputs = _pairs(flags["columns"], model), line.words[1:]
    _check_apart(inputs, out)
    choices = {name: flags[name] for name in ("rule", "by", "maps", "dicom")}
    print(CAUTION, file=sys.stderr)
    if flags["watch"]:
        watch(model, inputs, out, columns=columns, every=flags["every"], **choices)
        return 0
    cases = cases_of(inputs, model.about["images"]["kind"], model.groups, columns)
    session = run(model, cases, out, **choices)
    scored = {row["image_id"]: row["dicom"] for row in session.rows}
    told = f"{len(scored)} cases scored, {len(session.aside)} set aside; see {out / 'index.html'}."
    if flags["dicom"]:
        bare = sum(not place for place in scored.values())
        told += f" {len(scored) - bare} with a DICOM map, which names the patient"
        told += f"; {bare} are no DICOM or cannot be filed." * bool(bare) or "."
    print(f"{told} {CAUTION}")
    return 0


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
