"""A prepared dataset as the rest of the house sees it: a table and images by row."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data import build, manifest, store
from jaxfair.data.arrange import arrange, split_rule
from jaxfair.data.card import card_of
from jaxfair.data.config import SOURCES, DataConfig
from jaxfair.data.sources.base import MissingData
from jaxfair.errors import InputError
from jaxfair.files import json_digest
from jaxfair.phantom import write

__all__ = ["DataConfig", "Dataset", "open_dataset", "prepare"]

PHANTOM_COMMAND = "python -m jaxfair.train --config {config}:phantom"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A table with one row per image, and the images by row.

    Attributes:
      manifest: one row per image, positions 0 to n - 1 are the rows of `images`; columns of
        `manifest.COLUMNS`, one `label_<task>` (0, 1 or NaN) per task, `also_test` (bool, True
        only with `share_normals`), and what else the source knows: RSNA's `finding`,
        `abnormal` and `patient_abnormal`, `race`, the attributes of a table.
      pixels: (n, h, w, c) uint8, a memory map.
      data: "phantom" or "real".
      population: who the people are, for the privacy ledger (protocol P2).
      unit: what `patient_id` names, and so who is protected if nothing else is asked for:
        "patient", "lesion" or "image" (protocol P2).
      selection: "independent" or "coupled" (protocol P4).
      digest: SHA-256, hex, over pixels, manifest and split rule.
      card: for reports; private, no guarantee covers it.
      folder: where the prepared set lies.
      tasks: names T of the columns label_T that an example carries, in the order of `label`.
    """

    manifest: pd.DataFrame
    pixels: np.ndarray
    data: str
    population: str
    unit: str
    selection: str
    digest: str
    card: dict[str, Any]
    folder: pathlib.Path
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def spec(self) -> dict[str, Any]:
        """`jax.ShapeDtypeStruct`s of one raw example, without a batch axis."""
        import jax

        labels = (len(self.tasks),)
        return {
            "image": jax.ShapeDtypeStruct(self.pixels.shape[1:], np.float32),
            "label": jax.ShapeDtypeStruct(labels, np.float32),
            "label_mask": jax.ShapeDtypeStruct(labels, np.bool_),
        }

    @property
    def fields(self) -> dict[str, Callable[[Any], np.ndarray]]:
        """Readers of a raw example's arrays by row, (b,) int -> (b, ...), named as in `spec`."""
        return {"image": self.images, "label": self.labels, "label_mask": self.label_mask}

    def images(self, rows: Any) -> np.ndarray:
        """Images by row: (b,) int in 0..n-1 -> (b, h, w, c) float32 in [0, 1]."""
        rows = np.asarray(rows, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"Rows are 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}.")
        return self.pixels[rows].astype(np.float32) / np.float32(255)

    def labels(self, rows: Any) -> np.ndarray:
        """Labels by row: (b,) int -> (b, l) float32, zero where a label was not asked."""
        return np.nan_to_num(self._label_table[rows])

    def label_mask(self, rows: Any) -> np.ndarray:
        """Where labels were asked: (b,) int -> (b, l) bool."""
        return ~np.isnan(self._label_table[rows])

    @functools.cached_property
    def _label_table(self) -> np.ndarray:
        return self.manifest[[f"label_{task}" for task in self.tasks]].to_numpy(np.float32)

    def rows(self, split: str) -> np.ndarray:
        """Rows of a split, ascending; with `share_normals` test has validation's normals too."""
        if split not in manifest.SPLITS[:3]:
            raise InputError(f"split is {split!r}; it must be train, validation or test.")
        belongs = self.manifest["split"] == split
        if split == "test":
            belongs |= self.manifest["also_test"]
        return np.flatnonzero(belongs)

    def units(self, unit: str, split: str = "train") -> tuple[list[str], list[np.ndarray]]:
        """Groups a split's rows by who is protected.

        Args:
          unit: the dataset's own unit, or "image".
          split: train, validation or test.

        Returns:
          ids, sorted, and for each the ascending rows of its images.

        Raises:
          InputError: a unit whose ids the dataset does not have (protocol P2).
        """
        if unit == "patient" != self.unit:
            hint = SOURCES[self.card["dataset"]["source"]].SPEC["patient_hint"]
            raise InputError(
                "The unit 'patient' needs true patient ids, and this dataset has none: "
                f"{hint}, or use the unit {self.unit!r}."
            )
        if unit not in (self.unit, "image"):
            known = " or ".join(map(repr, dict.fromkeys((self.unit, "image"))))
            raise InputError(f"The unit of privacy is {unit!r}; it must be {known}.")
        column = "patient_id" if unit == self.unit else "image_id"
        rows = self.rows(split)
        groups = pd.Series(rows).groupby(self.manifest[column].to_numpy()[rows], sort=True)
        return [str(name) for name in groups.groups], [g.to_numpy() for _, g in groups]


def open_dataset(config: DataConfig, *, progress: bool = True) -> Dataset:
    """Opens the prepared dataset that `config` names, and makes it first if it is missing.

    Raises:
      InputError: the data is missing (the sentence says what was looked for, where to get it
        and how to run the phantom), or the prepared folder is another one.
    """
    folder = prepare(config, progress=progress)
    about = build.read_marker(folder) or {}
    packed = folder / store.PIXELS
    if not packed.is_file():
        store.pack(folder)
    seen = store.sha256_of(packed)
    if seen != about["pixels_sha256"]:
        raise InputError(f"{packed} is damaged (its checksum differs); delete {folder}.")
    unit = about.get("unit") or ("patient" if about["patient_ids_known"] else "image")
    table = arrange(pd.read_parquet(folder / "manifest.parquet"), config)
    manifest.check(table, unit=unit)
    rejected = pd.read_csv(folder / "rejected.csv", keep_default_na=False)
    rule = split_rule(config)
    card = json.loads((folder / "data_card.json").read_text())
    card |= card_of(table, rejected, {"split_rule": rule})
    return Dataset(
        manifest=table,
        pixels=store.open_pixels(folder),
        data=about["data"],
        population=about["population"],
        unit=unit,
        selection="coupled" if config.split == "thesis" else "independent",
        digest=_digest(seen, table, rule),
        card=card,
        folder=folder,
        tasks=config.tasks,
    )


def prepare(config: DataConfig, *, progress: bool = True) -> pathlib.Path:
    """Makes the prepared folder of `config` unless it is there, and returns it.

    A phantom is drawn first if it is missing. A prepared set whose source has gone is used as
    it is; one whose source has changed is refused.
    """
    root = _root(config)
    if config.phantom is not None and root is not None:
        write.write_phantom(config.phantom, root, source=config.source, progress=progress)
    folder = _prepared(config, root)
    if folder is not None and store.occupied(folder):
        seen = None if root is None else build.fingerprint(root, config)
        build.refuse_other(folder, build.read_marker(folder), config.identity, seen)
        return folder
    spec = SOURCES[config.source]
    if root is None or folder is None:
        raise _missing(
            "No data folder is named: data.root is empty and the variable JAXFAIR_DATA is not set. "
            f"{spec.HOW_TO_GET}",
            config,
        )
    ordered = functools.partial(arrange, config=config)
    try:
        return build.prepare_folder(root, folder, config, arrange=ordered, progress=progress)
    except MissingData as error:
        raise _missing(str(error), config) from error


def _root(config: DataConfig) -> pathlib.Path | None:
    if config.phantom is None:
        named = config.root or os.environ.get("JAXFAIR_DATA")
        return pathlib.Path(named) if named else None
    place = pathlib.Path(config.root or "runs/phantoms")
    if write.is_phantom(config.phantom, place, source=config.source):
        return place
    if build.fingerprint(place, config) is not None:
        raise InputError(
            f"data.root is {place}, which holds images already; a PHANTOM needs a folder of its "
            "own, leave data.root empty."
        )
    return place / config.phantom.folder_name(config.source)


def _prepared(config: DataConfig, root: pathlib.Path | None) -> pathlib.Path | None:
    if config.prepared:
        return pathlib.Path(config.prepared)
    if root is None:
        return None
    more = {k: v for k, v in config.identity.items() if k not in ("source", "image_size")}
    mark = f"-{json_digest(more)[:8]}" if more else ""
    size = "x".join(map(str, config.volume)) if config.volume else f"{config.image_size}px"
    name = f"{root.absolute().name}-{size}{mark}"
    return root.absolute().parent / "jaxfair-prepared" / name


def _missing(what: str, config: DataConfig) -> InputError:
    command = PHANTOM_COMMAND.format(config=SOURCES[config.source].SPEC["config"])
    return InputError(
        f"{what} Then name the folder as data.root (prepare: --root) or in the variable "
        f"JAXFAIR_DATA; or try the PHANTOM stand-in: {command}"
    )


def _digest(pixels: str, table: pd.DataFrame, rule: dict[str, Any]) -> str:
    digest = hashlib.sha256(pixels.encode())
    digest.update(table.to_csv(index=False).encode())
    digest.update(json.dumps(rule, sort_keys=True).encode())
    return digest.hexdigest()
