"""The data sets of the studies of gaps: drawn films with a planted gap, lesions, one hospital."""

import pathlib
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxfair.data.examples import VALUES
from jaxfair.experiment import DRAWN_COLUMNS, HAM10000

__all__ = [
    "CONTRAST",
    "FILMS",
    "HALF",
    "SEED",
    "Groups",
    "Source",
    "drawn_films",
    "drawn_findings",
    "hospital",
    "lesions",
    "rsna",
]

Section = Mapping[str, Any]

SHARED = pathlib.Path("../shared/data")
"""Relative to the root of the project, from which the studies are run."""

FILMS = {"quick": 2_000, "default": 12_000, "full": 26_684}
"""Size of a study -> films that are drawn."""

SEED = 1
"""Of drawn films; settings of trainings were chosen on those of the seed 0, who are others."""

CONTRAST = {"films": 0.6, "findings": 0.15}
"""Women's findings are drawn at this part of the brightness of men's: the planted gap. What fixed
features hardly see makes no gap: with films of the seed 0 the AUROC of women was .003 below that of
men at .6, .04 at .3 and .08 at .15. So more is planted in the findings."""

HALF = {name: (1 + contrast) / 2 for name, contrast in CONTRAST.items()}
"""Half of it is gone at the source; whatever is trained, women are then served better."""


class Groups(NamedTuple):
    """Declared facts of the groups that a mitigation is told; public constants, never counted.

    Attributes:
      by: the attribute.
      shares: of each of its values among training patients, in their order; they add up to 1.
      positives: rate of the label in each group; () where no label trains.
      least: number of the group that is expected to be served worst, said beforehand: the planted
        one, or the rarest where nothing is planted. The gap of a table is all others minus it.
      core: another part of the patients that a core set may keep, "attribute=value".
    """

    by: str
    shares: tuple[float, ...]
    positives: tuple[float, ...]
    least: int
    core: str = "view=PA"

    @property
    def values(self) -> tuple[str, ...]:
        """The groups by name, in the order of their numbers."""
        return tuple(VALUES[self.by])

    @property
    def cells(self) -> tuple[float, ...]:
        """Share of each cell, a group's negatives before its positives; () without a label."""
        pairs = zip(self.shares, self.positives, strict=False)
        return tuple(round(s * part, 6) for s, p in pairs for part in (1 - p, p))


class Source(NamedTuple):
    """What is trained on.

    Attributes:
      name: of its folder.
      title: for readers; where the images are drawn it says PHANTOM.
      section: the section `data` of a config.
      task: the label that is told.
      attribute: column whose groups are compared.
      groups: what mitigations are told of them.
      planted: flat fields of a config in which half of the planted gap is gone; {} for none.
      describes: why no conclusion is drawn of it; "" where one is.
      missing: why it cannot be had here; "" where it can.
    """

    name: str
    title: str
    section: Section
    task: str
    attribute: str
    groups: Groups
    planted: Section = types.MappingProxyType({})
    describes: str = ""
    missing: str = ""


def rsna(size: str, root: str | None) -> dict[str, Any]:
    """Returns the section `data` of RSNA in the folder `root`, or of drawn films without one."""
    found: dict[str, Any] = {"source": "rsna", "image_size": 64, "groups": ("sex",)}
    if root is None:
        films = {"n_images": FILMS[size], "pixels": 64, "seed": SEED}
        planted = {"gap_group": "F", "gap_contrast": CONTRAST["films"]}
        found |= {"root": "runs/phantoms", "phantom": films | planted}
    else:
        found |= {"root": root}
    return found | ({"image_size": 128} if size == "full" else {})


def drawn_films(size: str, root: str | None = None) -> Source:
    """Returns normal films to train on, a third of whose women train: all that is planted."""
    count = FILMS["full"] if root else FILMS[size]
    section = rsna(size, root) | {
        "curate": "public",  # of normal films, which alone train, so that `keep` stays free
        "curate_label": "anomaly",
        "curate_toward": {"sex": ("F",)},
        "curate_keep": {"sex": 0.33},
        "curate_splits": ("train",),
    }
    men, women = 0.0932 * count, 0.38 * 0.0703 * count
    total = men + women
    return Source(
        "films",
        "REAL: RSNA" if root else "PHANTOM: drawn films, women's opacities fainter and women fewer",
        section | {"public_size": int(round(total, -1))},
        task="anomaly",
        attribute="sex",
        groups=Groups("sex", (round(women / total, 3), round(men / total, 3)), (), least=0),
        planted={} if root else {"data.phantom.gap_contrast": HALF["films"]},
    )


def drawn_findings(size: str) -> Source:
    """Returns drawn films with infiltrates, women's fainter, for a classifier."""
    films = {"quick": 1_500, "default": 6_000, "full": 12_000}[size]
    return Source(
        "findings",
        "PHANTOM: drawn films, women's infiltrates fainter",
        {
            "source": "table",
            "table": {**DRAWN_COLUMNS, "labels": ("pneumonic_infiltrates_right",)},
            "root": "runs/phantoms",
            "image_size": 48,
            "views": ("AP", "PA"),
            "groups": ("sex",),
            "split": "random",
            "public_size": films * 2 // 5,
            "phantom": {"n_images": films, "pixels": 64, "seed": SEED, "gap_group": "F",
                        "gap_contrast": CONTRAST["findings"]},
        },
        task="pneumonic_infiltrates_right",
        attribute="sex",
        groups=Groups("sex", (0.45, 0.55), (0.2, 0.2), least=0),
        planted={"data.phantom.gap_contrast": HALF["findings"]},
    )  # fmt: skip


def lesions(size: str) -> Source:
    """Returns HAM10000: one image per lesion, with sex and age group."""
    root = SHARED / "derm-ham10000"
    return Source(
        "lesions",
        "REAL: skin lesions of HAM10000, 48 x 48",
        {
            **HAM10000,
            "root": str(root),
            "prepared": "runs/prepared/derm-ham10000",
            "groups": ("sex", "age_group"),
            "split": "random",
            "public_size": 4_200,
        },
        task="malignant",
        attribute="age_group",
        groups=Groups(
            "age_group",
            (0.02, 0.08, 0.32, 0.32, 0.19, 0.07),
            (0.01, 0.05, 0.05, 0.14, 0.32, 0.46),
            least=5,
            core="age_group=46-60",
        ),
        missing=_missing(root, "HAM10000 at 48 x 48 (configs/derm_probe.py)"),
    )


def hospital(size: str) -> Source:
    """Returns films of COVID-19 patients of one hospital, 71 of them: for description only."""
    root = SHARED / "cxr-hannover"
    words = {"sex": {"female": "F", "male": "M"}}
    return Source(
        "hannover",
        "REAL: chest films of 71 COVID-19 patients in Hannover, for description only",
        {
            "source": "table",
            "root": str(root),
            "prepared": "runs/prepared/cxr-hannover",
            "table": {"file": "metadata.csv", "image": "image", "patient": "patient_id",
                      "sex": "sex", "view": "view", "labels": ("in_icu_at_exam",),
                      "values": words, "name": "hannover", "licence": "CC BY 3.0"},
            "image_size": 48,
            "groups": ("sex",),
            "split": "random",
            "public_size": 50,
        },
        task="in_icu_at_exam",
        attribute="sex",
        groups=Groups("sex", (0.34, 0.66), (0.45, 0.65), least=0),
        describes="71 patients, a test set of about 14: no interval, no test, no conclusion.",
        missing=_missing(root, "the Hannover images (doi 10.6084/m9.figshare.12275009)"),
    )  # fmt: skip


def _missing(root: pathlib.Path, what: str) -> str:
    if (root / "metadata.csv").is_file():
        return ""
    return f"There is no {root}/metadata.csv: get {what}."
