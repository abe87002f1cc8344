"""What predictions leave: tables, JSON, maps and rejected files, each written whole."""

import io
import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, PngImagePlugin

from jaxfair import files
from jaxfair.errors import InputError
from jaxfair.predict.painting import heat
from jaxfair.schema import CAUTION

__all__ = ["ASIDE", "check_new", "map_file", "picture_bytes", "write_map", "write_tables"]

ASIDE = ("image_id", "file", "reason", "notice")
COLUMNS = (
    "image_id", "patient_id", "file", "task", "score", "threshold", "threshold_of", "positive",
    "notes", "map", "dicom", "notice",
)  # fmt: skip


LEFT = (
    "predictions.parquet", "predictions.csv", "predictions.json", "rejected.csv", "index.html",
    "maps", "dicom",
)  # fmt: skip
"""What predictions leave in their folder."""


def check_new(out: pathlib.Path) -> None:
    """Makes the folder, before any file is read for it.

    Raises InputError where it has something of LEFT (what is old would pass for new), and where it
    cannot be written.
    """
    there = [name for name in LEFT if (out / name).exists()]
    if there:
        raise InputError(
            f"--out is {out}, which holds {there[0]} of an earlier prediction; name another "
            "folder, or move that one away."
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise InputError(
            f"--out is {out}, which cannot be written ({error.strerror}); name another folder."
        ) from error


def write_tables(
    out: pathlib.Path,
    rows: Sequence[dict[str, Any]],
    aside: Sequence[dict[str, str]],
    about: dict[str, Any],
) -> None:
    """Writes predictions.parquet, .csv and .json, and rejected.csv; each row has the caution.

    Args:
      rows: one for each case and task.
      aside: one for each file that could not be read: ASIDE.
      about: what scored, and how it was decided; the head of the JSON.
    """
    table = pd.DataFrame(list(rows)) if rows else pd.DataFrame(columns=list(COLUMNS))
    table = table.assign(notice=CAUTION)
    listed = pd.DataFrame(list(aside), columns=list(ASIDE)).assign(notice=CAUTION)
    files.write_table(out / "predictions.parquet", table)
    files.write_table(out / "predictions.csv", table)
    files.write_table(out / "rejected.csv", listed)
    cases = json.loads(table.drop(columns="notice").to_json(orient="records"))
    told = json.loads(listed.drop(columns="notice").to_json(orient="records"))
    content = {"notice": CAUTION, **about, "predictions": cases, "rejected": told}
    files.write_json(out / "predictions.json", content)


def map_file(name: str, maps: np.ndarray) -> str:
    """Returns where the map of a case lies: of a picture a PNG, of a volume NIfTI."""
    return f"maps/{files.slug(name)}.{'png' if maps.ndim == 2 else 'nii.gz'}"


def write_map(
    path: pathlib.Path, pixels: np.ndarray, maps: np.ndarray, affine: np.ndarray | None = None
) -> None:
    """Writes a map: image and map side by side as PNG, or the volume's map as NIfTI.

    Args:
      pixels: (h, w, c) uint8, or (d, h, w, 1).
      maps: (h, w), black up to its median and white at its highest value; or (d, h, w), which are
        written as they are.
      affine: of a volume (`read_volume`), so that the map lies over its source; None where nobody
        knows how it lies, which the file then says.
    """
    if maps.ndim == 3:
        _write_nifti(path, maps, affine)
    else:
        files.write_bytes(path, picture_bytes(pixels, maps))


def picture_bytes(pixels: np.ndarray, maps: np.ndarray | None) -> bytes:
    """Returns a PNG of an image, with its map beside it where it has one.

    Args:
      pixels: (h, w, c) uint8; of a volume (d, h, w, 1) the middle slice is shown.
    """
    plane = pixels[len(pixels) // 2] if pixels.ndim == 4 else pixels
    both = [plane[..., 0] if plane.shape[-1] == 1 else plane]
    if maps is not None and maps.ndim == 2:
        grey = np.round(255 * heat(maps)).astype(np.uint8)
        both.append(grey if both[0].ndim == 2 else np.repeat(grey[..., None], 3, -1))
    told, file = PngImagePlugin.PngInfo(), io.BytesIO()
    told.add_text("Comment", CAUTION)
    Image.fromarray(np.concatenate(both, axis=1)).save(file, "PNG", pnginfo=told)
    return file.getvalue()


def _write_nifti(path: pathlib.Path, maps: np.ndarray, affine: np.ndarray | None) -> None:
    import nibabel

    image = nibabel.Nifti1Image(maps.T.astype(np.float32), affine)
    image.header["descrip"] = CAUTION.encode()
    if affine is not None:
        image.header.set_xyzt_units("mm")
    with files.whole(path) as draft:
        named = draft.with_name(draft.name.removesuffix(".gz").removesuffix(".nii") + ".nii.gz")
        nibabel.save(image, named)
        named.replace(draft)
