"""Decodes a source once into a prepared folder, with a card of what it holds."""

import hashlib
import json
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data import decode, manifest, store, workers
from jaxfair.data.sources import phantom, rsna
from jaxfair.errors import InputError
from jaxfair.files import write_json, write_table

__all__ = ["MARKER", "card_of", "fingerprint", "prepare_folder", "read_marker", "refuse_other"]

MARKER = "prepared.json"
FORMAT = 1


def prepare_folder(
    root: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    image_size: int,
    arrange: Callable[[pd.DataFrame], pd.DataFrame],
    progress: bool = True,
) -> pathlib.Path:
    """Writes the prepared set `out`, whole or not at all; leaves one that is there untouched.

    It holds jaxfair_images/ (a TFDS dataset in manifest order), pixels.npy (the same, packed),
    manifest.parquet, rejected.csv, data_card.json and, written last, prepared.json.

    Args:
      root: a folder in the RSNA layout (a phantom's too).
      out: where to write.
      image_size: side of the square images.
      arrange: adds `label_<task>` and `split` to a manifest without them.
      progress: draws a progress bar.

    Raises:
      InputError: what `rsna.read_table` refuses, or no image could be decoded.
    """
    root, out = pathlib.Path(root), pathlib.Path(out)
    table = rsna.read_table(root)
    with store.whole_folder(out) as draft:
        if draft is not None:
            _fill(draft, root, table, image_size, arrange, progress)
    return out


def read_marker(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the prepared folder says about itself, or None where there is none."""
    path = pathlib.Path(folder) / MARKER
    return json.loads(path.read_text()) if path.is_file() else None


def fingerprint(root: str | os.PathLike[str]) -> str:
    """SHA-256 over the tables' bytes and the names and sizes of the DICOM files of `root`."""
    root, digest = pathlib.Path(root), hashlib.sha256()
    for name in (rsna.LABELS, rsna.CLASSES, rsna.MAPPING):
        path = root / name
        digest.update(f"{name} {store.sha256_of(path) if path.is_file() else '-'}\n".encode())
    with os.scandir(root / rsna.IMAGES) as entries:
        sizes = sorted((entry.name, entry.stat().st_size) for entry in entries)
    digest.update(json.dumps(sizes).encode())
    return digest.hexdigest()


def card_of(table: pd.DataFrame, rejected: pd.DataFrame, more: dict[str, Any]) -> dict[str, Any]:
    """The data card: what a reader must know about a table before trusting a model made of it.

    Args:
      table: a manifest.
      rejected: image_id, file, reason.
      more: further entries.

    Returns:
      A dict for JSON: counts by split x label x sex x age group x view, missing values,
      rejected files by reason. It is about patients and no differential privacy covers it.
    """
    labels = [name for name in table.columns if name.startswith("label_")]
    keys = ["split", *labels, "sex", "age_group", "view"]
    cells = (
        table.groupby(keys, dropna=False, sort=True, observed=True)
        .size()
        .reset_index(name="images")
    )
    return {
        "covered_by_privacy_guarantee": False,
        "images": len(table),
        "patients": int(table["patient_id"].nunique()),
        "images_per_patient": _tally(table.groupby("patient_id").size()),
        "patients_with_two_sexes": int((table.groupby("patient_id")["sex"].nunique() > 1).sum()),
        "counts": [
            {str(name): _plain(value) for name, value in cell.items()}
            for cell in cells.to_dict("records")
        ],
        "missing": {
            "sex": int((table["sex"] == "unknown").sum()),
            "age": int(table["age"].isna().sum()),
            "view": int((table["view"] == "unknown").sum()),
        },
        "rejected": {"total": len(rejected), "by_reason": _tally(_kinds(rejected["reason"]))},
    } | more


def _fill(
    draft: pathlib.Path,
    root: pathlib.Path,
    table: rsna.SourceTable,
    image_size: int,
    arrange: Callable[[pd.DataFrame], pd.DataFrame],
    progress: bool,
) -> None:
    about = _about(root, table, image_size)
    gathered = _Gathered(table)
    images = gathered.images(image_size, progress=progress, data=about["data"])
    store.write_images(draft, images, (image_size, image_size, 1), description=_description(about))
    packed = store.pack(draft)
    rows = arrange(pd.DataFrame(gathered.kept))
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

    def __init__(self, table: rsna.SourceTable) -> None:
        self.kept: list[dict[str, Any]] = []
        self.aside: list[tuple[str, str, str]] = []
        self.copies: list[list[str]] = []
        self._table = table
        self._seen: dict[bytes, dict[Any, Any]] = {}
        self._tally: dict[str, Counter[str]] = {}

    def images(self, side: int, *, progress: bool, data: str) -> Iterator[tuple[str, np.ndarray]]:
        rows = self._table.rows.to_dict("records")
        jobs = [(row["path"], side) for row in rows]
        label = "decode PHANTOM" if data == "phantom" else "decode"
        results = workers.parallel(decode.decode_square, jobs, label=label, progress=progress)
        for row, (pixels, header) in zip(rows, results):
            if self._keep(row, pixels, header) and pixels is not None:
                yield row["image_id"], pixels

    def tallies(self) -> dict[str, Any]:
        return {
            "headers": {name: dict(sorted(c.items())) for name, c in sorted(self._tally.items())},
            "copies_under_two_patients": self.copies,
        }

    def _keep(self, row: dict[Any, Any], pixels: np.ndarray | None, header: dict) -> bool:
        reason = header["reason"] if pixels is None else self._copy_of(row, pixels)
        if reason:
            self.aside.append((row["image_id"], pathlib.Path(row["path"]).name, reason))
            return False
        sex, how_sex = manifest.sex_from_text(header["sex_text"])
        age, how_age = manifest.age_from_text(header["age_text"])
        view, how_view = manifest.view_from_text(header["view_text"])
        shape = "square" if header["rows"] == header["columns"] else "middle square cut out"
        counted = {"sex": how_sex, "age": how_age, "view": how_view, "shape": shape}
        counted |= {name: str(header[name]) for name in ("photometric", "bits", "syntax")}
        for name, value in [*counted.items(), *(("remarks", r) for r in header["remarks"])]:
            self._tally.setdefault(name, Counter())[value] += 1
        names = ("image_id", "patient_id", "finding", "abnormal", "patient_abnormal")
        facts = {"sex": sex, "age": age, "age_group": manifest.age_group([age])[0], "view": view}
        self.kept.append({name: row[name] for name in names} | facts)
        return True

    def _copy_of(self, row: dict[Any, Any], pixels: np.ndarray) -> str:
        """Why this image is a copy to set aside, or "".

        A second copy within one unit goes. Under two known patients both stay and the card
        names them: dropping one because the other is there would let one patient decide over
        another's images, which the guarantee forbids.
        """
        first = self._seen.setdefault(hashlib.sha256(pixels.tobytes()).digest(), row)
        if first is row:
            return ""
        if self._table.patient_ids_known and first["patient_id"] != row["patient_id"]:
            self.copies.append([first["image_id"], row["image_id"]])
            return ""
        return f"same pixels as {first['image_id']}"


def _about(root: pathlib.Path, table: rsna.SourceTable, image_size: int) -> dict[str, Any]:
    drawn = phantom.read_marker(root)
    return {
        "format": FORMAT,
        "source": rsna.SPEC["name"],
        "title": f"{'PHANTOM in the layout of ' if drawn else ''}{rsna.SPEC['title']}",
        "licence": "drawn by a program, no patient" if drawn else rsna.SPEC["licence"],
        "data": "phantom" if drawn else "real",
        "phantom": drawn,
        "population": "phantom" if drawn else rsna.SPEC["population"],
        "patient_ids_known": table.patient_ids_known,
        "image_size": image_size,
        "fingerprint": fingerprint(root),
    }


def _description(about: dict[str, Any]) -> str:
    return (
        f"{about['title']}: {about['image_size']} px squares, uint8, in the order of "
        "manifest.parquet, which holds labels, groups and splits."
    )


def _kinds(reasons: pd.Series) -> pd.Series:
    """Reasons without the names and numbers in them, for counting."""
    kinds = reasons.str.replace(r"\S+\.dcm ", "", regex=True)
    return kinds.str.replace(r"same pixels as .*", "same pixels as another", regex=True)


def _tally(values: pd.Series) -> dict[str, int]:
    return {str(key): int(n) for key, n in values.value_counts().sort_index().items()}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value


def refuse_other(
    folder: pathlib.Path, about: dict[str, Any] | None, wanted: dict[str, Any]
) -> None:
    """Raises InputError where a prepared folder is not the one that is asked for.

    Args:
      folder: where it lies.
      about: its `read_marker`.
      wanted: entries that must be equal there.
    """
    if about is None:
        raise InputError(
            f"{folder} exists and is no prepared dataset (it has no {MARKER}); name another "
            "folder (data.prepared, or --out of prepare)."
        )
    for name, value in wanted.items():
        if about.get(name) == value:
            continue
        made = f"with {name} {about.get(name)!r}, and {value!r} is asked for"
        if name == "fingerprint":
            made = "from other files than the data folder holds now (names, sizes or tables differ)"
        raise InputError(
            f"{folder} was prepared {made}; delete the folder or name another (data.prepared, or "
            "--out of prepare)."
        )
