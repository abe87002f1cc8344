"""What a phantom is made of, checked before anything is drawn, and what it is called."""

import dataclasses
import hashlib
import json
from typing import Any

from jaxfair.errors import InputError, nearest
from jaxfair.phantom.thorax_findings import FINDINGS
from jaxfair.schema import AGE_GROUPS, PHANTOM, SEXES

__all__ = ["RECIPES", "SITES", "PhantomConfig"]

RECIPES = {"rsna": 1, "chexpert": 1, "cxr14": 1, "mimic_cxr": 1, "table": 1, "volumes": 1}
"""Source -> number of its drawing; grows with every change of what is drawn, so that an old
phantom is not taken for a new one."""

SITES = ("selected", "unselected", "independent")
"""Where linked films come from: `link_site`."""

VIEWS = ("AP", "PA")  # findings are drawn on frontal films alone


@dataclasses.dataclass(frozen=True)
class PhantomConfig:
    """What a phantom is made of; equal configs give equal pixels.

    Attributes:
      n_images: number of films or scans, at least 20.
      seed: of everything random.
      pixels: side of the square images, and of the slices of a volume, 32 to 1024.
      gap_group: whose findings are fainter: a sex, a view, an age group, or "" for nobody.
      gap_contrast: strength of their findings relative to the others', above 0.
      slices: of a volume, 8 to 512; films have none.
      link_label: a finding of films that is linked with the sex, so that women have it more often
        and a classifier can take the sex for it; "" for none.
      link: P(finding | woman) - P(finding | man) at the site that selects, 0 up to below 1.
      link_cause: share of `link` that is a true effect of the sex; the rest is how this site
        selects its patients.
      link_contrast: strength of the linked finding, above 0; the smaller, the harder to see.
      link_site: one of SITES: "selected", with the whole link; "unselected", with the true effect
        alone; "independent", with none. Each has patients of its own.
    """

    n_images: int = 2400
    seed: int = 0
    pixels: int = 256
    gap_group: str = "F"
    gap_contrast: float = 0.6
    slices: int = 32
    link_label: str = ""
    link: float = 0.0
    link_cause: float = 0.5
    link_contrast: float = 0.35
    link_site: str = "selected"

    @property
    def rates(self) -> dict[str, float]:
        """Sex -> probability that a study of such a person has the linked finding, at this site."""
        rho = self.link * {"selected": 1.0, "unselected": self.link_cause}.get(self.link_site, 0.0)
        return {"F": (1 + rho) / 2, "M": (1 - rho) / 2}

    def __post_init__(self) -> None:
        groups = ("", *SEXES, *VIEWS, *AGE_GROUPS)
        rules = (
            (20 <= self.n_images <= 1_000_000, "n_images", "20 to 1,000,000"),
            (0 <= self.seed < 2**63, "seed", "0 to 2**63 - 1"),
            (32 <= self.pixels <= 1024, "pixels", "32 to 1024"),
            (self.gap_group in groups, "gap_group", f"one of {', '.join(map(repr, groups))}"),
            (0 < self.gap_contrast <= 4, "gap_contrast", "above 0 and at most 4"),
            (8 <= self.slices <= 512, "slices", "8 to 512"),
            (self.link_label in ("", *FINDINGS), "link_label", f"'' or one of {FINDINGS}"),
            (0 <= self.link < 1, "link", "0 up to below 1"),
            (0 <= self.link_cause <= 1, "link_cause", "0 to 1"),
            (0 < self.link_contrast <= 4, "link_contrast", "above 0 and at most 4"),
            (self.link_site in SITES, "link_site", f"one of {', '.join(SITES)}"),
            (
                bool(self.link_label) or not self._linked,
                "link_label",
                f"named, since data.phantom.{next(iter(self._linked), '')} is set",
            ),
        )
        for holds, name, rule in rules:
            if not holds:
                raise InputError(
                    f"data.phantom.{name} is {getattr(self, name)!r}; it must be {rule}."
                )

    @property
    def _linked(self) -> list[str]:
        """Fields of the link that differ from their defaults."""
        fields = [f for f in dataclasses.fields(self) if f.name.startswith("link")]
        return [f.name for f in fields if getattr(self, f.name) != f.default]

    def identity(self, source: str) -> dict[str, Any]:
        """What the marker holds, and what tells this phantom from every other one.

        Raises:
          InputError: nothing is drawn for this source, or its images have no view and the gap
            is planted in one.
        """
        if source not in RECIPES:
            raise InputError(
                f"There is no phantom for data.source {source!r}; there are {', '.join(RECIPES)}."
                f"{nearest(source, RECIPES)}"
            )
        if source == "volumes" and self.gap_group in VIEWS:
            raise InputError(
                f"data.phantom.gap_group is {self.gap_group!r}, and volumes have no view; name a "
                "sex or an age group."
            )
        if self.link_label and source in ("rsna", "volumes"):
            raise InputError(
                f"data.phantom.link_label is {self.link_label!r}, and the phantom of {source!r} "
                "has no such finding; use table, chexpert, cxr14 or mimic_cxr."
            )
        fields = dataclasses.asdict(self)
        if source != "volumes":
            del fields["slices"]
        if not self.link_label:  # a phantom without a link is called what it was always called
            fields = {name: v for name, v in fields.items() if not name.startswith("link")}
        named = {} if source == "rsna" else {"source": source}
        return {"data": PHANTOM, "recipe": RECIPES[source]} | named | fields

    def folder_name(self, source: str = "rsna") -> str:
        """A folder name that differs whenever the images do."""
        text = json.dumps(self.identity(source), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        size = f"{self.n_images}x{self.pixels}px-seed{self.seed}-{digest}"
        return f"phantom-{size}" if source == "rsna" else f"phantom-{source}-{size}"
