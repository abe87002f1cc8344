"""Gives damaged files to the readers as `prepare` does, and says what came of them."""

import contextlib
import dataclasses
import functools
import pathlib
import random
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxfair.data import reading, sizes
from jaxfair.data.pixels import Job
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError
from tests.fuzz.corpus import Sample, sample_at, samples, write_images
from tests.fuzz.mutate import mutated

__all__ = ["FATAL", "VERDICTS", "Outcome", "fuzz", "kept", "measured", "summary"]

MEGABYTES, SECONDS = 64, 20
FLAT = Stored(image_size=32, max_megabytes=MEGABYTES, max_seconds=SECONDS)
SOLID = Stored(
    volume=(8, 16, 16), spacing=(2.0, 2.0, 2.0), window=(0, 4096), max_megabytes=MEGABYTES,
    max_seconds=SECONDS,
)  # fmt: skip
FATAL = ("uncaught", "aborted", "too slow", "too large", "lost")
"""What must not occur: `uncaught` would end the command, `lost` has neither image nor reason."""

VERDICTS = ("read", "refused", "raised", *FATAL)
"""`raised` is an exception that a reader does not list: its file is set aside, and shown here."""


class Outcome(NamedTuple):
    """What came of a file: its name, its kind, one of VERDICTS, the reason, and the peak in MB."""

    name: str
    kind: str
    verdict: str
    reason: str
    megabytes: float


def fuzz(
    count: int, seed: int, folder: pathlib.Path, *, processes: int | None = None,
    progress: bool = False,
) -> list[Outcome]:  # fmt: skip
    """Damages `count` files, writes them to `folder` and reads them.

    File i depends on the seed, on i and on the corpus alone. The reader is that of a source, by
    `reading.read_files`, which is what `prepare` calls.
    """
    corpus, outcomes = samples(), []
    write_images(folder)
    written = [_write(sample_at(i, corpus), i, seed, folder) for i in range(count)]
    for source, how in (("table", FLAT), ("volumes", SOLID), ("csv", FLAT)):
        mine = [(sample, path) for sample, path in written if sample.source == source]
        jobs = [Job(str(path), how_of(sample)) for sample, path in mine]
        read = functools.partial(measured, source)
        found = reading.read_files(
            read, jobs, how, label=source, progress=progress, processes=processes
        )
        outcomes += [_outcome(s, p, *f) for (s, p), f in zip(mine, found, strict=True)]
    return outcomes


def how_of(sample: Sample) -> Stored:
    """What is asked of it: a plain array has no spacing, so none is asked for."""
    if sample.source != "volumes":
        return FLAT
    return dataclasses.replace(SOLID, spacing=None) if sample.name.endswith(".npy") else SOLID


def _write(
    sample: Sample, place: int, seed: int, folder: pathlib.Path
) -> tuple[Sample, pathlib.Path]:
    rng = random.Random(f"{seed} {place} {sample.name}")
    path = folder / f"{place:05d}-{sample.name}"
    path.write_bytes(mutated(sample.name, sample.content, rng))
    return sample, path


def measured(source: str, job: Job) -> tuple[Any, dict[str, Any]]:
    """What a source reads, with the time and the most memory that it took on the way."""
    start, before = time.perf_counter(), _peak(reset=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=RuntimeWarning, module="jaxfair")  # NaN to uint8
        image, header = _read_table(job) if source == "csv" else SOURCES[source].read_pixels(job)
    took = {"seconds": time.perf_counter() - start, "megabytes": _peak() - before}
    return image, header | took


def _read_table(job: Job) -> tuple[Any, dict[str, Any]]:
    """The table alone, through the door of its source; its images need not be there."""
    from jaxfair.data.config import make_data_config

    path = pathlib.Path(job.path)
    about = {"file": path.name, "image": "image", "patient": "patient", "sex": "sex", "age": "age",
             "view": "view", "labels": ("label",)}  # fmt: skip
    config = make_data_config(source="table", root=str(path.parent), table=about)
    try:
        SOURCES["table"].inventory(path.parent, config.options)
        return SOURCES["table"].read_table(path.parent, config.options), {}
    except InputError as error:
        return None, {"reason": str(error)}


def _peak(*, reset: bool = False) -> float:
    """Most resident memory of this process in MB, counted from now on where `reset`."""
    if reset:
        with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) / 1024
    return 0.0


def _outcome(sample: Sample, path: pathlib.Path, image: Any, header: dict[str, Any]) -> Outcome:
    reason, peak = str(header.get("reason", "")), float(header.get("megabytes", 0))
    verdict = "read" if image is not None else _verdict(reason, path.name)
    if verdict == "raised" and sample.source == "csv":
        verdict = "uncaught"  # a table is read by the command itself
    if peak > sizes.WORKER * MEGABYTES:
        verdict = "too large"
    if header.get("seconds", 0) > SECONDS:
        verdict = "too slow"
    return Outcome(path.name, path.name.rpartition(".")[2], verdict, reason, peak)


def _verdict(reason: str, name: str) -> str:
    """What a reason says: the sentence of a reader, or what `reading.read_files` made of it."""
    for verdict, words in (
        ("too slow", "it took more than"),
        ("aborted", "it ended the process"),
        ("too large", "takes more memory than"),
        ("too large", "was killed twice"),
        ("raised", f"{name} cannot be read: "),
    ):
        if words in reason:
            return verdict
    return "refused" if reason else "lost"


def summary(outcomes: list[Outcome], seed: int, seconds: float) -> str:
    """A table of verdicts by kind of file, and every outcome that is no reading and no refusal."""
    rows = [("kind", "files", *VERDICTS, "peak MB")]
    for kind in [*sorted({o.kind for o in outcomes}), "all"]:
        mine = [o for o in outcomes if kind in (o.kind, "all")]
        verdicts = [str(sum(o.verdict == v for o in mine)) for v in VERDICTS]
        rows.append((kind, str(len(mine)), *verdicts, f"{max(o.megabytes for o in mine):.0f}"))
    lines = ["  ".join(cell.rjust(9) for cell in row) for row in rows]
    shown = [o for o in outcomes if o.verdict not in ("read", "refused")]
    lines += [f"{o.verdict}: {o.name}: {o.reason}" for o in shown]
    limits = f"{SECONDS} s and {sizes.WORKER * MEGABYTES} MB a file"
    return "\n".join([*lines, f"seed {seed}, {seconds:.0f} s, at most {limits}"])


def kept(outcomes: list[Outcome], folder: pathlib.Path, where: pathlib.Path) -> Iterator[str]:
    """Copies what was fatal to `where`, and yields the names."""
    where.mkdir(parents=True, exist_ok=True)
    for outcome in outcomes:
        if outcome.verdict in (*FATAL, "raised"):
            (where / outcome.name).write_bytes((folder / outcome.name).read_bytes())
            yield outcome.name
