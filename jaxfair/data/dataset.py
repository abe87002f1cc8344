"""A prepared dataset as the rest of the house sees it: a table and images by row."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.data import build, manifest, splits, store
from jaxfair.data.arranging import arrange, moved_rates
from jaxfair.data.card import card_of
from jaxfair.data.config import DataConfig
from jaxfair.data.examples import agreed, example_spec, group_codes, scaled
from jaxfair.data.sources.base import MissingData
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.errors import InputError
from jaxfair.files import json_digest
from jaxfair.schema import SPLITS

__all__ = ["Dataset", "open_dataset", "prepare"]

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
      groups: attribute of an example's `group`, in its order -> its public values.
      weighted: whether an example carries the `weight` of its row.
      strict: False where a group's value that is none of `groups` counts as unknown: at a
        second site, whose values the model has never met.
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
    groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    weighted: bool = False
    strict: bool = True

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def spec(self) -> dict[str, Any]:
        """The arrays of one raw example, as `examples.example_spec`."""
        return example_spec(
            self.pixels.shape[1:],
            labels=len(self.tasks),
            groups=len(self.groups),
            weighted=self.weighted,
        )

    @property
    def fields(self) -> dict[str, Callable[[Any], np.ndarray]]:
        """Readers of a raw example's arrays by row, (b,) int -> (b, ...), named as in `spec`."""
        readers: dict[str, Callable[[Any], np.ndarray]] = {
            "image": self.images,
            "label": self.labels,
            "label_mask": self.label_mask,
            "group": lambda rows: self._codes[rows],
            "weight": lambda rows: self.manifest["weight"].to_numpy(np.float32)[rows],
        }
        return {name: readers[name] for name in self.spec}

    def images(self, rows: Any) -> np.ndarray:
        """Images by row: (b,) int in 0..n-1 -> (b, h, w, c) float32 in [0, 1]."""
        rows = np.asarray(rows, np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"Rows are 0 to {len(self) - 1}, got {rows.min()} to {rows.max()}.")
        return scaled(self.pixels[rows])

    def labels(self, rows: Any) -> np.ndarray:
        """Labels by row: (b,) int -> (b, l) float32, zero where a label was not asked."""
        return np.nan_to_num(self._label_table[rows])

    def label_mask(self, rows: Any) -> np.ndarray:
        """Where labels were asked: (b,) int -> (b, l) bool."""
        return ~np.isnan(self._label_table[rows])

    @functools.cached_property
    def _label_table(self) -> np.ndarray:
        return self.manifest[[f"label_{task}" for task in self.tasks]].to_numpy(np.float32)

    @functools.cached_property
    def _codes(self) -> np.ndarray:
        return group_codes(self.manifest, self.groups, strict=self.strict)

    def rows(self, split: str) -> np.ndarray:
        """Rows of a split, ascending; with `share_normals` test has validation's normals too."""
        if split not in SPLITS:
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
        if split == "train" and unit != self.unit:
            splits.refuse_image_units(self.card["split_rule"]["split"], self.unit)
        column = "patient_id" if unit == self.unit else "image_id"
        rows = self.rows(split)
        groups = pd.Series(rows).groupby(self.manifest[column].to_numpy()[rows], sort=True)
        return [str(name) for name in groups.groups], [g.to_numpy() for _, g in groups]

    def unit_groups(self, unit: str, attribute: str, split: str = "train") -> np.ndarray:
        """The group of each unit, by one public rule: the value on which all its images agree.

        The images are those of the split, and -1 stands where they differ or one of them is not
        known. Nobody's group depends on another's images, so rates by group are protocol P9's.

        Args:
          unit: as of `units`, whose order the codes have.
          attribute: one of `groups`.
          split: train, validation or test.

        Returns:
          (n_units,) int32, the place of the value in `groups[attribute]`, or -1.

        Raises:
          InputError: the attribute is none of `groups`, or it is the view, which one image has
            and a patient has not.
        """
        if attribute not in self.groups:
            raise InputError(
                f"There are no groups of {attribute!r}; name it in data.groups, which has "
                f"{', '.join(self.groups) or 'none'}."
            )
        if attribute == "view" and unit != "image":
            raise InputError(f"A view belongs to an image, and the unit is the {unit}.")
        place = list(self.groups).index(attribute)
        _, rows = self.units(unit, split)
        return np.array([agreed(self._codes[own, place]) for own in rows], np.int32)


def open_dataset(config: DataConfig, *, progress: bool = True) -> Dataset:
    """Opens the prepared dataset that `config` names, and makes it first if it is missing.

    Raises:
      InputError: the data is missing (the sentence says what was looked for, where to get it
        and how to run the phantom), or the prepared folder is another one.
    """
    folder = prepare(config, progress=progress)
    about = build.read_marker(folder) or {}
    packed = folder / store.PIXELS
    rows, rejected, card = build.read_tables(folder)
    if not packed.is_file():
        store.pack(folder)
    seen = store.sha256_of(packed)
    if seen != about["pixels_sha256"]:
        raise InputError(f"{packed} is damaged (its checksum differs); delete {folder}.")
    unit = about.get("unit") or ("patient" if about["patient_ids_known"] else "image")
    table = arrange(rows, config)
    manifest.check(table, unit=unit)
    group_codes(table, config.group_values)  # refuses a value that has no code
    rule = config.rule
    card |= card_of(table, rejected, {"split_rule": rule} | moved_rates(rows, table, config))
    return Dataset(
        manifest=table,
        pixels=store.open_pixels(folder),
        data=about["data"],
        population=about["population"],
        unit=unit,
        selection=config.selection,
        digest=_digest(seen, table, rule),
        card=card,
        folder=folder,
        tasks=config.tasks,
        groups=config.group_values,
        weighted=config.weighted,
    )


def prepare(config: DataConfig, *, progress: bool = True) -> pathlib.Path:
    """Makes the prepared folder of `config` unless it is there, and returns it.

    A prepared set whose source has gone is used as it is; one whose source has changed is
    refused.
    """
    root = _root(config)
    folder = _prepared(config, root)
    if folder is not None and store.occupied(folder):
        seen = None if root is None else build.fingerprint(root, config)
        build.refuse_other(folder, build.read_marker(folder), config, seen)
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
    named = config.root or os.environ.get("JAXFAIR_DATA")
    return pathlib.Path(named) if named else None


def _prepared(config: DataConfig, root: pathlib.Path | None) -> pathlib.Path | None:
    if config.prepared:
        return pathlib.Path(config.prepared)
    if root is None:
        return None
    more = {k: v for k, v in config.identity.items() if k not in ("source", "image_size")}
    mark = f"-{json_digest(more)[:8]}" if more else ""
    stored = config.stored
    size = "x".join(map(str, stored.volume)) if stored.volume else f"{stored.image_size}px"
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
