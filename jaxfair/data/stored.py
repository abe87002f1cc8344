"""What is kept of an image or a volume, checked before any file is read."""

import dataclasses
import math
from typing import Any

from jaxfair.data import sizes
from jaxfair.data.checks import as_tuples, check_choice, check_rules

__all__ = ["Stored"]

MEGABYTES, VOLUME_MEGABYTES = 256, sizes.DEFAULT
SECONDS, VOLUME_SECONDS = 20, 120
WORKER = sizes.WORKER


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a prepared set keeps of each image.

    Attributes:
      image_size: side of the square images, 8 to 1024.
      channels: 1, or 3 for colour, where the source can give it.
      resize: how a film becomes a square: "crop" (its middle square), "pad" (black bars) or
        "stretch" (its sides scaled each by itself, as in DP_CXR).
      equalize: global histogram equalisation after that, as in DP_CXR.
      volume: (d, h, w) of the volumes that are kept, each 1 to 1024; for sources of volumes.
      spacing: (d, h, w) in mm to which volumes are resampled before; None leaves them.
      window: (low, high), the values of a volume that become black and white.
      max_megabytes: the largest image or volume, unpacked as float32, that is read; a file that
        declares more is set aside. None is MEGABYTES, or VOLUME_MEGABYTES for volumes. A process
        for decoding may hold WORKER times as much.
      max_seconds: a file that takes longer is set aside; None is SECONDS, or VOLUME_SECONDS for
        volumes.

    Raises InputError for a value outside these.
    """

    image_size: int = 128
    channels: int = 1
    resize: str = "crop"
    equalize: bool = False
    volume: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    window: tuple[float, ...] = (-150.0, 250.0)
    max_megabytes: int | None = None
    max_seconds: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w, c) of an image, (d, h, w, 1) of a volume."""
        return *(self.volume or (self.image_size, self.image_size)), self.channels

    @property
    def megabytes(self) -> int:
        """`max_megabytes`, or what None stands for."""
        return self.max_megabytes or (VOLUME_MEGABYTES if self.volume else MEGABYTES)

    @property
    def seconds(self) -> float:
        """`max_seconds`, or what None stands for."""
        return self.max_seconds or (VOLUME_SECONDS if self.volume else SECONDS)

    @property
    def identity(self) -> dict[str, Any]:
        """The side of the images, and every option that has not its default."""
        changed = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)
                   if getattr(self, f.name) != f.default}  # fmt: skip
        return {"image_size": self.image_size} | changed

    def __post_init__(self) -> None:
        as_tuples(self, "volume", "spacing", "window")
        check_choice(self, "resize", ("crop", "pad", "stretch"))
        sizes, spacing, window = self.volume or (1, 1, 1), self.spacing or (1, 1, 1), self.window
        flat = (self.resize, self.equalize) != ("crop", False)
        check_rules(self, (
            (8 <= self.image_size <= 1024, "image_size", "8 to 1024"),
            (self.channels in (1, 3), "channels", "1 or 3"),
            (not self.equalize or self.channels == 1, "equalize", "False for colour images"),
            (len(sizes) == 3 and all(1 <= n <= 1024 for n in sizes), "volume",
             "three numbers, 1-1024"),
            (len(spacing) == 3 and all(0 < v < math.inf for v in spacing), "spacing",
             "three sizes in mm above 0"),
            (len(window) == 2 and -math.inf < window[0] < window[1] < math.inf, "window",
             "two numbers, the lower one first"),
            (self.max_megabytes is None or self.max_megabytes >= 1, "max_megabytes", "at least 1"),
            (self.max_seconds is None or 0 < self.max_seconds < 1e6, "max_seconds", "above 0"),
            (self.volume is not None or self.spacing is None, "spacing", "left out for images"),
            (self.volume is None or not flat, "resize",
             "'crop', and data.equalize False, for volumes"),
        ))  # fmt: skip
