"""Scores cases and writes what is found: the way from a case to its rows, maps and notes."""

import contextlib
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxfair.data.pixels import Job
from jaxfair.data.reading import read_files
from jaxfair.errors import InputError
from jaxfair.model_file.model import Model
from jaxfair.predict import gallery, output, viewers
from jaxfair.predict.cases import Case, named_apart, shown
from jaxfair.predict.judged import AUTO, check_rule, decided, facts_of, notes_of, unread
from jaxfair.predict.source import read_source

__all__ = ["LIMITS", "Session", "check_choices", "in_our_words", "run"]

BATCH = 32
LIMITS: Mapping[str, str] = {"max_megabytes": "max-megabytes", "max_seconds": "max-seconds"}
"""Limits of files: a field of `Stored`, and the flag that sets it here."""


class _How(NamedTuple):
    """Which stored threshold decides, and whether maps are written."""

    rule: str
    by: str
    maps: bool


class Session:
    """What was found so far: rows of predictions, files set aside, and the highest scores."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.aside: list[dict[str, str]] = []
        self.highest = gallery.Highest()
        self.filing = viewers.Filing()
        self._names: set[str] = set()

    def named(self, cases: Sequence[Case]) -> list[Case]:
        """Returns the cases, none under the name of one that was here before: maps bear it."""
        found = named_apart(cases, self._names)
        self._names |= {case.name for case in found}
        return found

    def set_aside(self, case: Case, reason: str) -> None:
        """Notes that a case has no score, and why."""
        told = {"file": pathlib.PurePath(case.path).name, "reason": reason}
        self.aside.append(
            {"image_id": case.name} | {what: shown(text) for what, text in told.items()}
        )

    def set_aside_others(self, cases: Sequence[Case], reason: str) -> None:
        """Sets aside those of the cases of which nothing is said yet."""
        said = {one["image_id"] for one in (*self.rows, *self.aside)}
        for case in cases:
            if case.name not in said:
                self.set_aside(case, reason)


def in_our_words(reason: str) -> str:
    """Returns a reason with flags of this command for the fields of a config that it names.

    >>> in_our_words("It is too large, and data.max_megabytes is 256.")
    'It is too large, and --max-megabytes is 256.'
    """
    for field, flag in LIMITS.items():
        reason = reason.replace(f"data.{field}", f"--{flag}")
    return reason


def check_choices(model: Model, rule: str, by: str, dicom: bool) -> None:
    """Raises InputError where the model has no such thresholds, or no maps for `dicom`."""
    check_rule(model, rule, by)
    if dicom and not model.about["maps"]:
        raise InputError("--dicom writes anomaly maps, and this model has none; leave it out.")


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
    before: Session | None = None,
) -> Session:
    """Scores cases and writes all of DIR; returns what was found.

    Args:
      model: of `load_model`.
      cases: of `cases_of`.
      out: the folder, without an earlier prediction.
      rule, by: which stored threshold decides.
      maps: write anomaly maps, where the model has them.
      dicom: write those of DICOM cases as DICOM too; they name the patient.
      progress: draws a bar with rate and time left.
      before: what an earlier call found, which is written again with the new cases.

    Raises InputError as `check_choices` and `output.check_new`. A file that cannot be read, or
    whose score is no finite number, is set aside by name, with the reason, and ends nothing. What
    does end it, as an interrupt, ends it once all scores are written; the cases without one are
    then set aside by name.
    """
    check_choices(model, rule, by, dicom)
    if before is None:
        output.check_new(out)
    session = before or Session()
    cases = session.named(cases)
    for case in cases:
        if case.wrong:
            session.set_aside(case, case.wrong)
    cases = [case for case in cases if not case.wrong]
    jobs = [Job(case.path, model.stored) for case in cases]
    reader = functools.partial(read_source, model.reader) if dicom else model.reader
    read = read_files(reader, jobs, model.stored, label="predict", progress=progress)
    try:
        for batch in _batches(zip(cases, read), session):
            _score(model, batch, out, session, _How(rule, by, maps))
    except BaseException:
        if session.rows:
            session.set_aside_others(cases, "It was not scored: the prediction ended before.")
            with contextlib.suppress(OSError):  # a full disk is what ended it
                _write(model, out, session, rule, by, dicom)
        raise
    _write(model, out, session, rule, by, dicom)
    return session


def _write(
    model: Model, out: pathlib.Path, session: Session, rule: str, by: str, dicom: bool
) -> None:
    output.write_tables(out, session.rows, session.aside, _about(model, rule, by))
    found = session.highest, len(session.rows), session.aside
    gallery.write(out / "index.html", model, *found, dicom=dicom)


Read = tuple[Case, np.ndarray, Mapping[str, Any]]


def _batches(read: Iterator[Any], session: Session) -> Iterator[list[Read]]:
    """Readable cases, BATCH at a time; the others go aside."""
    batch: list[Read] = []
    for case, (pixels, header) in read:
        if pixels is None:
            session.set_aside(case, in_our_words(header["reason"]))
            continue
        batch.append((case, pixels, header))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _score(model: Model, batch: list[Read], out: pathlib.Path, session: Session, how: _How) -> None:
    pixels = np.stack([one for _, one, _ in batch])
    facts = [facts_of(case, header, model.groups) for case, _, header in batch]
    groups = {name: [fact[name] for fact in facts] for name in model.groups}
    scores = model.score(pixels, groups)
    maps = scores.pop("maps", None)
    for i, one in enumerate(batch):
        found = {task: float(values[i]) for task, values in scores.items()}
        odd = [task for task, score in found.items() if not math.isfinite(score)]
        if odd:
            session.set_aside(one[0], _no_number(one[0], odd))
            continue
        heat = None if maps is None else maps[i]
        _keep(model, one, facts[i], found, heat, out, session, how)


def _no_number(case: Case, tasks: Sequence[str]) -> str:
    return (
        f"{pathlib.PurePath(case.path).name} gets no finite score for {', '.join(tasks)}, so that "
        "nothing is decided about it; look at it, and tell who trained the model."
    )


def _keep(
    model: Model,
    one: Read,
    facts: Mapping[str, Any],
    scores: Mapping[str, float],
    heat: np.ndarray | None,
    out: pathlib.Path,
    session: Session,
    how: _How,
) -> None:
    """Writes the maps of a case, and adds its rows."""
    case, image, header = one
    notes = [
        *filter(None, [case.said]),
        *unread(case, header),
        *notes_of(model, facts, header, image),
    ]
    if heat is not None and not np.isfinite(heat).all():
        notes, heat = [*notes, "Map: its values are not finite, so none is written."], None
    place = ""
    if how.maps and heat is not None:
        place = output.map_file(case.name, heat)
        output.write_map(out / place, image, heat, header.get("affine"))
    source = header.get("source", "")
    seen, said = viewers.write_case(out, case.name, source, heat, model, session.filing)
    rows = []
    for task, score in scores.items():
        chosen = decided(model, task, score, facts, rule=how.rule, by=how.by)
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
        rows.append(row | dict(facts))
        session.highest.offer(row, image, heat)
    session.rows += rows


def _about(model: Model, rule: str, by: str) -> dict[str, Any]:
    epsilon = model.privacy.get("epsilon")
    return {
        "model": {"name": model.about["name"], "sha256": model.digest, "epsilon": epsilon},
        "rule": rule,
        "by": by,
    }
