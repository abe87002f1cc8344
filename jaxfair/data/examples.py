"""One raw example: its arrays, and the codes of the groups that it may carry."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.schema import AGE_GROUPS, SEXES, UNKNOWN, VIEWS

__all__ = ["VALUES", "agreed", "example_spec", "group_codes", "scaled"]

VALUES = {"sex": SEXES, "age_group": AGE_GROUPS, "view": VIEWS}
"""Attribute -> its public values, of every source. A group's code is its place here: it is fixed
before any data are seen, and equal in every run (protocol P4)."""


def example_spec(
    shape: tuple[int, ...], *, labels: int, groups: int = 0, weighted: bool = False
) -> dict[str, Any]:
    """`jax.ShapeDtypeStruct`s of one raw example, without a batch axis.

    `image` (h, w, c) or (d, h, w, c) float32 in [0, 1]; `label` (l,) float32, 0 or 1, and
    `label_mask` (l,) bool, False where the label was not asked. Only where they are configured:
    `group` (k,) int32, the code of each attribute of `data.groups`, -1 where it is not known; and
    `weight` () float32, a public number of the image.

    Args:
      shape: of the image.
      labels: l.
      groups: k, 0 for none.
      weighted: whether there is a weight.
    """
    import jax

    spec = {
        "image": jax.ShapeDtypeStruct(shape, np.float32),
        "label": jax.ShapeDtypeStruct((labels,), np.float32),
        "label_mask": jax.ShapeDtypeStruct((labels,), np.bool_),
    }
    if groups:
        spec["group"] = jax.ShapeDtypeStruct((groups,), np.int32)
    if weighted:
        spec["weight"] = jax.ShapeDtypeStruct((), np.float32)
    return spec


def group_codes(
    manifest: pd.DataFrame, values: Mapping[str, Sequence[str]], *, strict: bool = True
) -> np.ndarray:
    """The groups of each image: (n, k) int32, the place of its value in the attribute's list.

    Args:
      manifest: n rows with a column for each attribute.
      values: attribute -> its public values; k of them.
      strict: refuse a cell that the list does not name; else it is unknown.

    Returns:
      -1 stands for "unknown". A code is the image's own: two images of one person may differ.

    Raises:
      InputError: `strict`, and a cell holds what the public list does not name.

    >>> rows = pd.DataFrame({"sex": ["M", "unknown", "F"]})
    >>> group_codes(rows, {"sex": ("F", "M")}).ravel().tolist()
    [1, -1, 0]
    """
    codes = np.full((len(manifest), len(values)), -1, np.int32)
    for place, (name, known) in enumerate(values.items()):
        code = {value: i for i, value in enumerate(known)} | {UNKNOWN: -1}
        wrong = manifest.loc[~manifest[name].isin(list(code)), name]
        if strict and len(wrong):
            raise InputError(
                f"The column {name} holds {str(wrong.iloc[0])!r} ({len(wrong)} rows), and its "
                f"public values are {', '.join(known)}; add it to data.table.values, or mend the "
                "table."
            )
        codes[:, place] = manifest[name].map(code).fillna(-1)
    return codes


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Returns stored pixels, uint8 of any shape, as an example has them: float32 in [0, 1].

    >>> scaled(np.array([0, 255], np.uint8)).tolist()
    [0.0, 1.0]
    """
    return pixels.astype(np.float32) / np.float32(255)


def agreed(codes: np.ndarray) -> int:
    """The code that all images of a person share, -1 where they differ or one is not known.

    >>> agreed(np.array([1, 1])), agreed(np.array([0, 1])), agreed(np.array([1, -1]))
    (1, -1, -1)
    """
    return int(codes[0]) if (codes == codes[0]).all() else -1
