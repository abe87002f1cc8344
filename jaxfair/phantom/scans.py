"""Drawn abdominal CT scans with or without a lesion in the pancreas: NIfTI files and a table.

The table has one row per scan: image, patient, lesion (0 or 1), sex, age. Four persons in ten
have a lesion, whatever their sex and age; one in ten is scanned twice. The size of a voxel stands
in each file's header, differs from scan to scan and is not the same along the three axes. The
planted gap is in the brightness of the lesions of the gap group. The table also holds the faults
of `people.ODDITIES` in sex and age.
"""

import gzip
import pathlib

import numpy as np
import pandas as pd

from jaxfair.data import workers
from jaxfair.files import write_table
from jaxfair.phantom import abdomen, people
from jaxfair.phantom.config import PhantomConfig

__all__ = ["LESION_SHARE", "draw", "draw_table"]

LESION_SHARE = 0.4
VISITS = {1: 0.9, 2: 0.1}
HEIGHTS = (160.0, 200.0, 240.0)
"""Of a scan from first to last slice, in mm."""
WIDTHS = (350.0, 390.0)
"""From and to: side of a slice, in mm."""


def draw(config: PhantomConfig, folder: pathlib.Path, *, progress: bool = True) -> None:
    """Draws the scans and writes them and table.csv into the empty `folder`."""
    (folder / "images").mkdir()
    table = draw_table(config)
    jobs = [(config, row, str(folder)) for row in table.to_dict("records")]
    for _ in workers.parallel(_write_scan, jobs, label="draw PHANTOM", progress=progress):
        pass
    rows = table[["image", "patient"]].assign(lesion=table["lesion"].astype(int))
    rows["sex"] = table["listed_sex"]
    rows["age"] = table["listed_age"].astype(object).mask(table["listed_sex"] == "", "")
    write_table(folder / "table.csv", rows)


def draw_table(config: PhantomConfig) -> pd.DataFrame:
    """Draws who is scanned: one row per scan.

    Returns:
      Columns of `people.draw_studies`, index, image (path), lesion (bool, the same on
      all scans of a person), gap (bool), and the size of a voxel in mm: thick, side.
    """
    rng = np.random.default_rng([config.seed, 30])
    studies = people.draw_studies(config.n_images, VISITS, rng=rng)
    ill = rng.permutation(config.n_images) < LESION_SHARE * config.n_images
    scans = studies.head(config.n_images).copy()
    scans["lesion"] = ill[scans["patient"] - 1]
    scans["gap"] = people.in_gap(scans, config.gap_group)
    scans["index"] = np.arange(len(scans))
    scans["image"] = [
        f"images/{patient:05d}_{study}.nii.gz"
        for patient, study in zip(scans["patient"], scans["study"])
    ]
    scans["thick"] = np.round(rng.choice(HEIGHTS, len(scans)) / config.slices, 3)
    scans["side"] = np.round(rng.uniform(*WIDTHS, len(scans)) / config.pixels, 3)
    return scans


def _write_scan(job: tuple[PhantomConfig, dict, str]) -> None:
    config, row, root = job
    person = np.random.default_rng([config.seed, 31, row["patient"]])
    rng = np.random.default_rng([config.seed, 32, row["index"]])
    scan = abdomen.draw_scan(
        abdomen.draw_build(row["sex"], row["age"], rng=person),
        row["lesion"],
        (config.slices, config.pixels, config.pixels),
        (row["thick"], row["side"], row["side"]),
        contrast=config.gap_contrast if row["gap"] else 1.0,
        rng=rng,
    )
    path = pathlib.Path(root) / row["image"]
    path.write_bytes(gzip.compress(_nifti(scan, row), compresslevel=3, mtime=0))


def _nifti(scan: np.ndarray, row: dict) -> bytes:
    """The bytes of a NIfTI-1 file; its axes run to the patient's left, back and head."""
    import nibabel

    affine = np.diag([-row["side"], -row["side"], row["thick"], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(scan.shape[::-1]) - 1) / 2
    image = nibabel.Nifti1Image(np.ascontiguousarray(scan.T), affine)
    image.header["descrip"] = "PHANTOM: drawn by a program, no patient"
    image.header.set_xyzt_units("mm")
    return image.to_bytes()
