"""The data sets and trainings that both studies share."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.arms.cells import PLAIN, Data
from jaxfair.experiment import DRAWN_COLUMNS, DRAWN_LINK, HAM10000

__all__ = [
    "FEATURES",
    "IMAGES",
    "NETWORK",
    "PRIVATE",
    "SECTIONS",
    "lesions",
    "linked_phantom",
    "training",
]

LESIONS = pathlib.Path("../shared/data/derm-ham10000")
"""Relative to the root of the project, from which the studies are run."""

FEATURES: dict[str, Any] = {"backbone": "features"}
NETWORK: dict[str, Any] = {"backbone": "resnet9", "activation": "mish"}
IMAGES: dict[str, dict[str, Any]] = {
    "phantom": {"symmetric": False, "colours": 8},  # a thorax has a top and a left
    "lesions": {"symmetric": True},
}
"""What of `method` follows from the images, where the backbone is FEATURES."""


def linked_phantom(quick: bool) -> Data:
    """Drawn films in which the heart's size is linked with the sex, and an independent site.

    So many films that at a link of .8 men have about 400 positives in the test set and 200 in a
    fold that validates: below these, gaps of decisions are noise and groups take the pooled
    threshold (protocol S6, S10). The quick form has fewer, and its page says so.
    """
    films = 3_000 if quick else 34_000
    section = {
        "source": "table",
        "table": {**DRAWN_COLUMNS, "labels": ("cardiomegaly",)},
        "root": "runs/phantoms",
        "image_size": 48,
        "views": ("AP", "PA"),
        "groups": ("sex",),
        "split": "validation_folds",
        "folds": 5,
        "test_share": 0.28,
        "public_size": 900 if quick else 10_500,  # training patients, rounded; fixes q and delta
        "phantom": {**DRAWN_LINK, "n_images": films, "link_contrast": 0.5},
    }
    return Data(
        "phantom",
        "PHANTOM: drawn films, the finding linked with the sex",
        section,
        attributes=("sex",),
        task="cardiomegaly",
        independent={
            "phantom.link_site": "independent",
            "phantom.n_images": 2_000 if quick else 6_000,
        },
        differs=(
            "The published numbers are of CheXpert films of patients, eight groups by race, sex "
            "and age, and DenseNet-121 at 224 px; these films are drawn at 48 px and have one "
            "attribute and a link of .8, of which half is a true effect. Levels cannot be "
            "compared, only what a method changes. The second test set is a site without a link."
        ),
    )


def lesions(quick: bool) -> Data:
    """Skin lesions of HAM10000, one image per lesion, with sex and age group."""
    missing = "" if (LESIONS / "metadata.csv").is_file() else (
        f"There is no {LESIONS}/metadata.csv: get HAM10000 at 48 x 48 (configs/derm_probe.py)."
    )  # fmt: skip
    section = {
        **HAM10000,
        "root": str(LESIONS),
        "prepared": "runs/prepared/derm-ham10000",
        "groups": ("sex", "age_group"),
        "split": "validation_folds",
        "folds": 5,
        "test_share": 0.3,
        "public_size": 3_300,  # 56 % of 5,984, rounded
    }
    return Data(
        "lesions",
        "REAL: skin lesions of HAM10000",
        section,
        attributes=("sex", "age_group"),
        task="malignant",
        differs=(
            "The published numbers are of chest films; these are 5,984 lesions at 48 x 48, whose "
            "women and men are served alike to begin with, while ages are not. There is no second "
            "test set. The unit is the lesion: the table names no patients."
        ),
        missing=missing,
    )


SECTIONS: dict[str, dict[str, Mapping[str, Any]]] = {
    "heads": {
        "optim": {"name": "nadam", "learning_rate": 1e-3, "average": "ema", "ema_decay": 0.9},
        "dp": {"l2_clip_norm": 1.0, "microbatch": 704},
        "train": {"steps": 1_000, "expected_batch_size": 512},
    },
    "resnet9": {
        "optim": {"name": "nadam", "learning_rate": 1e-3, "average": "ema", "ema_decay": 0.9},
        "dp": {"l2_clip_norm": 1.0, "microbatch": 32},
        "train": {"steps": 240, "expected_batch_size": 64},
    },
}
"""What all arms of a part share, with and without privacy."""

PRIVATE: dict[str, dict[str, Mapping[str, Any]]] = {
    "heads": {"optim": {"learning_rate": 1e-2}},
    "resnet9": {"train": {"steps": 60, "expected_batch_size": 256}},
}
"""What of it differs at an epsilon: small heads bear a high rate, a network wants large draws."""


def training(part: str, *, quick: bool, epsilon: float) -> dict[str, Mapping[str, Any]]:
    """Returns the sections that all arms of a part share at an epsilon; quick ones are shorter."""
    differs = {} if epsilon == PLAIN else PRIVATE[part]
    found = {n: {**fields, **differs.get(n, {})} for n, fields in SECTIONS[part].items()}
    if quick:
        found["train"] |= {"steps": 40, "expected_batch_size": 128}
    found["train"]["checkpoint_every"] = found["train"]["steps"]
    return found
