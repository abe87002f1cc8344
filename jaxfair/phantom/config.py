"""What a phantom is made of, checked before anything is drawn, and what it is called."""

import dataclasses
import hashlib
import json
from typing import Any

from jaxfair.errors import InputError, nearest
from jaxfair.schema import AGE_GROUPS, PHANTOM, SEXES

__all__ = ["RECIPES", "PhantomConfig"]

RECIPES = {"rsna": 1, "chexpert": 1, "cxr14": 1, "mimic_cxr": 1, "table": 1, "volumes": 1}
"""Source -> number of its drawing; grows with every change of what is drawn, so that an old
phantom is not taken for a new one."""

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
    """

    n_images: int = 2400
    seed: int = 0
    pixels: int = 256
    gap_group: str = "F"
    gap_contrast: float = 0.6
    slices: int = 32

    def __post_init__(self) -> None:
        groups = ("", *SEXES, *VIEWS, *AGE_GROUPS)
        rules = (
            (20 <= self.n_images <= 1_000_000, "n_images", "20 to 1,000,000"),
            (0 <= self.seed < 2**63, "seed", "0 to 2**63 - 1"),
            (32 <= self.pixels <= 1024, "pixels", "32 to 1024"),
            (self.gap_group in groups, "gap_group", f"one of {', '.join(map(repr, groups))}"),
            (0 < self.gap_contrast <= 4, "gap_contrast", "above 0 and at most 4"),
            (8 <= self.slices <= 512, "slices", "8 to 512"),
        )
        for holds, name, rule in rules:
            if not holds:
                raise InputError(
                    f"data.phantom.{name} is {getattr(self, name)!r}; it must be {rule}."
                )

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
        fields = dataclasses.asdict(self)
        if source != "volumes":
            del fields["slices"]
        named = {} if source == "rsna" else {"source": source}
        return {"data": PHANTOM, "recipe": RECIPES[source]} | named | fields

    def folder_name(self, source: str = "rsna") -> str:
        """A folder name that differs whenever the images do."""
        text = json.dumps(self.identity(source), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        size = f"{self.n_images}x{self.pixels}px-seed{self.seed}-{digest}"
        return f"phantom-{size}" if source == "rsna" else f"phantom-{source}-{size}"
