"""Decodes a source once into a prepared folder, with a card of what it holds."""

import hashlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from jaxfair.data import greys, pixels, reading, sizes, store, words
from jaxfair.data.card import card_of
from jaxfair.data.checks import field_names
from jaxfair.data.config import DataConfig
from jaxfair.data.decode import short
from jaxfair.data.sources.base import ASIDE, SourceTable
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError
from jaxfair.files import read_json, write_json, write_table
from jaxfair.schema import PHANTOM, PHANTOM_MARKER, REAL, age_groups

__all__ = ["MARKER", "fingerprint", "prepare_folder", "read_marker", "read_tables", "refuse_other"]

MARKER = "prepared.json"
FORMAT = 2
TEXTS = tuple(f"{name}_text" for name in words.READERS)
WORDS = 5
"""How many of the words that are not understood the card lists, the commonest first."""
NOT_SQUARE = {"crop": "middle square cut out", "pad": "padded", "stretch": "stretched"}


def prepare_folder(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: DataConfig,
    *,
    arrange: Callable[[pd.DataFrame], pd.DataFrame],
    progress: bool = True,
) -> pathlib.Path:
    """Writes the prepared set `out`, whole or not at all; leaves one that is there untouched.

    It holds jaxfair_images/ (a TFDS dataset in manifest order), pixels.npy (the same, packed),
    manifest.parquet, rejected.csv, data_card.json and, written last, prepared.json.

    Args:
      root: a folder in the layout of the source, drawn or of patients.
      out: where to write.
      config: names the source and what is kept of an image.
      arrange: adds `label_<task>` and `split` to a manifest without them.
      progress: draws a progress bar.

    Raises:
      InputError: what the source's `read_table` refuses, or no image could be decoded.
    """
    root, out = pathlib.Path(root), pathlib.Path(out)
    with sizes.at_most(config.stored.megabytes):
        table = SOURCES[config.source].read_table(root, config.options)
    with store.whole_folder(out) as draft:
        if draft is not None:
            _fill(draft, root, table, config, arrange, progress)
    return out


def read_marker(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the prepared folder says about itself, or None where there is none."""
    try:
        return _json_of(pathlib.Path(folder) / MARKER)
    except ValueError as error:
        raise _damaged(pathlib.Path(folder), error) from error


def read_tables(folder: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Manifest, what was set aside, and card of a prepared folder; InputError if one is damaged."""
    try:
        return (
            pd.read_parquet(folder / "manifest.parquet"),
            pd.read_csv(folder / "rejected.csv", keep_default_na=False)[ASIDE],
            json.loads((folder / "data_card.json").read_text()),
        )
    except Exception as error:  # parquet raises what it likes
        raise _damaged(folder, error) from error


def _damaged(folder: pathlib.Path, error: Exception) -> InputError:
    return InputError(f"{folder} is damaged ({short(error)}); delete it and prepare again.")


def fingerprint(root: str | os.PathLike[str], config: DataConfig) -> str | None:
    """SHA-256 over the tables' bytes and the images' names and sizes; None if all have gone."""
    root, digest = pathlib.Path(root), hashlib.sha256()
    tables, sizes = SOURCES[config.source].inventory(root, config.options)
    if not sizes and not any(path.is_file() for path in tables):
        return None
    for path in tables:
        seen = store.sha256_of(path) if path.is_file() else "-"
        digest.update(f"{path.relative_to(root)} {seen}\n".encode())
    digest.update(json.dumps(sizes).encode())
    return digest.hexdigest()


def _fill(
    draft: pathlib.Path,
    root: pathlib.Path,
    table: SourceTable,
    config: DataConfig,
    arrange: Callable[[pd.DataFrame], pd.DataFrame],
    progress: bool,
) -> None:
    about = _about(root, table, config)
    gathered = _Gathered(table)
    images = gathered.images(config, progress=progress, data=about["data"])
    store.write_images(draft, images, config.stored.shape, description=_description(about))
    packed = store.pack(draft)
    rows = arrange(gathered.manifest())
    aside = pd.DataFrame(gathered.aside, columns=table.rejected.columns)
    rejected = pd.concat([table.rejected, aside], ignore_index=True)
    write_table(draft / "manifest.parquet", rows)
    write_table(draft / "rejected.csv", rejected)
    about |= {"images": len(rows), "pixels_sha256": store.sha256_of(packed)}
    more = {"dataset": about, "found": table.counts} | gathered.tallies()
    write_json(draft / "data_card.json", card_of(rows, rejected, more))
    write_json(draft / MARKER, about)


class _Gathered:
    """Collects manifest rows, rejected files and tallies while images stream to the writer."""

    def __init__(self, table: SourceTable) -> None:
        self.aside: list[tuple[str, str, str]] = []
        self.copies: dict[str, list[list[str]]] = {"of_one_unit": [], "of_two_units": []}
        self._cut = ""
        self._kept: list[int] = []
        self._facts: list[tuple[Any, ...]] = []
        self._table = table
        self._seen: dict[bytes, tuple[str, str]] = {}
        self._tally: dict[str, Counter[str]] = {}
        self._unread: dict[str, Counter[str]] = {}
        rows = table.rows
        nobody = np.full(len(rows), None)
        self._texts = {
            name: rows[name].to_numpy(object) if name in rows else nobody for name in TEXTS
        }

    def images(
        self, config: DataConfig, *, progress: bool, data: str
    ) -> Iterator[tuple[str, np.ndarray]]:
        rows, how = self._table.rows, config.stored
        self._cut = NOT_SQUARE[how.resize]
        index = rows["index"] if "index" in rows else np.full(len(rows), -1)
        jobs = [pixels.Job(path, how, int(i)) for path, i in zip(rows["path"], index)]
        results = reading.read_files(
            SOURCES[config.source].read_pixels,
            jobs,
            how,
            label="decode PHANTOM" if data == PHANTOM else "decode",
            progress=progress,
            processes=self._table.processes,
        )
        names = zip(rows["image_id"], rows["patient_id"])
        for place, (image_id, patient_id) in enumerate(names):
            image, header = next(results)
            if image is None:
                name = pathlib.PurePath(jobs[place].path).name
                self.aside.append((image_id, name, header["reason"]))
                continue
            self._mark_copy(image_id, patient_id, image)
            self._keep(place, header)
            yield image_id, image
        if not self._kept:
            reason = f"; the first was refused: {self.aside[0][2]}" if self.aside else "."
            raise InputError(f"No image could be prepared{reason}")

    def manifest(self) -> pd.DataFrame:
        """The kept rows, with sex, age, age_group and view."""
        rows = self._table.rows.iloc[self._kept].reset_index(drop=True)
        rows = rows.drop(columns=["path", "index", *TEXTS], errors="ignore")
        sex, age, view = zip(*self._facts)
        facts = {"sex": sex, "age": age, "age_group": age_groups(age), "view": view}
        return rows.assign(**{name: list(values) for name, values in facts.items()})

    def tallies(self) -> dict[str, Any]:
        return {
            "headers": {name: dict(sorted(c.items())) for name, c in sorted(self._tally.items())},
            "unread": {
                name: dict(c.most_common(WORDS)) for name, c in sorted(self._unread.items())
            },
            "copies": self.copies,
        }

    def _keep(self, place: int, header: dict[str, Any]) -> None:
        counted, facts = {}, []
        for name, read in words.READERS.items():
            text = self._text(f"{name}_text", place, header)
            value, counted[name] = read(text)
            facts.append(value)
            if counted[name] in words.UNREAD:
                self._unread.setdefault(name, Counter())[text] += 1
        self._kept.append(place)
        self._facts.append(tuple(facts))
        if "rows" in header:
            square = header["rows"] == header["columns"]
            counted["shape"] = "square" if square else self._cut
        counted |= {
            name: str(header[name]) for name in ("photometric", "bits", "syntax") if name in header
        }
        for name, value in [*counted.items(), *(("remarks", r) for r in header["remarks"])]:
            self._tally.setdefault(name, Counter())[value] += 1

    def _text(self, name: str, place: int, header: dict[str, Any]) -> str:
        """What the table says, else what the header says."""
        written = self._texts[name][place]
        return header.get(name, "") if written is None else str(written)

    def _mark_copy(self, image_id: str, patient_id: str, image: np.ndarray) -> None:
        """Names an image whose pixels another one has too; both stay (protocol P15).

        Dropping one because the other is there would let one unit decide over another's
        membership: who leaves would bring somebody else in, and epsilon 8 would be 19. Within
        one patient too, as the unit may be the image.
        """
        own = (image_id, patient_id)
        first = self._seen.setdefault(hashlib.sha256(image.tobytes()).digest(), own)
        if first is not own:
            units = "of_one_unit" if first[1] == patient_id else "of_two_units"
            self.copies[units].append([first[0], image_id])


def _json_of(path: pathlib.Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _about(root: pathlib.Path, table: SourceTable, config: DataConfig) -> dict[str, Any]:
    drawn, spec = _json_of(root / PHANTOM_MARKER), config.facts
    about = {
        "format": FORMAT,
        "decoder": greys.RULE,
        "title": f"{'PHANTOM in the layout of ' if drawn else ''}{spec['title']}",
        "licence": "drawn by a program, no patient" if drawn else spec["licence"],
        "data": PHANTOM if drawn else REAL,
        "phantom": drawn,
        "population": PHANTOM if drawn else spec["population"],
        "patient_ids_known": table.patient_ids_known,
        "fingerprint": fingerprint(root, config),
    }
    named = {} if table.unit in ("patient", "image") else {"unit": table.unit}
    return about | config.identity | named


def _description(about: dict[str, Any]) -> str:
    size = f"{about['image_size']} px squares"
    if "volume" in about:
        size = f"volumes of {' x '.join(map(str, about['volume']))} voxels"
    return (
        f"{about['title']}: {size}, uint8, in the order of manifest.parquet, which holds labels, "
        "groups and splits."
    )


def refuse_other(
    folder: pathlib.Path,
    about: dict[str, Any] | None,
    config: DataConfig,
    seen: str | None,
) -> None:
    """Raises InputError where a prepared folder is not the one that is asked for.

    Args:
      folder: where it lies.
      about: its `read_marker`.
      config: what is asked for.
      seen: the source's `fingerprint` now, None where it has gone.
    """
    if about is None:
        raise InputError(
            f"{folder} exists and is no prepared dataset (it has no {MARKER}); name another "
            "folder (data.prepared, or --out of prepare)."
        )
    options = field_names(SOURCES[config.source].OPTIONS)
    names = ("format", "decoder", "source", *field_names(Stored), *options)
    has = {name: about.get(name) for name in names}
    asked = json.loads(json.dumps(config.identity))
    wanted = dict.fromkeys(has) | asked | {"format": FORMAT, "decoder": greys.RULE}
    for name, value in wanted.items():
        if has.get(name) != value:
            _refuse(folder, f"with {name} {has.get(name)!r}, and {value!r} is asked for")
    if seen is not None and about["fingerprint"] != seen:
        _refuse(folder, "from other files than the data folder holds now (names, sizes or tables "
                "differ)")  # fmt: skip


def _refuse(folder: pathlib.Path, made: str) -> NoReturn:
    raise InputError(
        f"{folder} was prepared {made}; delete the folder or name another (data.prepared, or "
        "--out of prepare)."
    )
