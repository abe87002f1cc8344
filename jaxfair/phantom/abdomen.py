"""An abdominal CT drawn from a parametric model; no patient is behind it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxfair.phantom.thorax import step

__all__ = ["Build", "draw_build", "draw_scan"]

AIR, FAT, MUSCLE, FLUID = -1000, -100, 55, 10
"""Hounsfield units, as all below: a scan with contrast medium in the portal venous phase."""
LESION = 230
"""A lesion takes up more contrast medium than anything around it but bone."""


class Build(NamedTuple):
    """What is the same on every scan of one person; lengths in mm."""

    wide: float  # half width of the body
    deep: float  # half depth
    fat: float  # thickness of the fat under the skin
    scale: float  # size of the organs, 1 on average
    pancreas: float  # Hounsfield units
    bone: float  # Hounsfield units of the spine
    vessel: float  # radius of the aorta


def draw_build(sex: str, age: float, *, rng: np.random.Generator) -> Build:
    """Draws a person. Women are 7 % smaller, with 5 mm more fat under the skin. Between 40 and
    90 years the pancreas loses 20 HU, the spine 80 HU, and the aorta widens by a quarter;
    nothing else depends on sex or age.
    """
    woman, old = sex == "F", float(np.clip((age - 40) / 50, 0, 1))
    vary = rng.normal(size=7).tolist()
    return Build(
        wide=(160 - 11 * woman) * (1 + 0.05 * vary[0]),
        deep=(118 - 7 * woman) * (1 + 0.06 * vary[1]),
        fat=max(6.0, 16 + 5 * woman + 4 * vary[2]),
        scale=(1 - 0.07 * woman) * (1 + 0.04 * vary[3]),
        pancreas=105 - 20 * old + 5 * vary[4],
        bone=300 - 80 * old + 20 * vary[5],
        vessel=10 * (1 + 0.25 * old) * (1 + 0.05 * vary[6]),
    )


def draw_scan(
    build: Build,
    lesion: bool,
    shape: Sequence[int],
    spacing: Sequence[float],
    *,
    contrast: float = 1.0,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws one scan of the upper abdomen with the pancreas in its middle.

    Args:
      build: from `draw_build`.
      lesion: one mass of 36 to 56 mm in or at the pancreas, at its head seven times out of ten,
        brighter than the pancreas.
      shape: (d, h, w) in voxels.
      spacing: of the voxels along d, h and w, in mm.
      contrast: how much of the brightness of what was there the mass replaces, 1 is all of
        it; below 1 a lesion is harder to see.
      rng: everything random comes from it.

    Returns:
      (d, h, w) int16 in Hounsfield units: feet to head, front to back, and from the patient's
      right to the left.
    """
    space = _Space.pose(build, shape, spacing, rng)
    mass = rng.spawn(1)[0]
    _body(space, build)
    _organs(space, build, rng)
    _bowel(space, rng)
    path = _pancreas(space, build, rng)
    if lesion:
        _lesion(space, contrast, path, mass)
    noise = rng.standard_normal(space.values.shape, dtype=np.float32)
    return np.round(np.clip(space.values + 10 * noise, -1024, 3071)).astype(np.int16)


class _Space(NamedTuple):
    """Voxels and their coordinates in mm: z up, y to the back, x to the patient's left."""

    values: np.ndarray
    axes: tuple[np.ndarray, ...]
    scale: float  # of the organs
    blur: float  # width of an edge, in mm

    @classmethod
    def pose(
        cls,
        build: Build,
        shape: Sequence[int],
        spacing: Sequence[float],
        rng: np.random.Generator,
    ) -> "_Space":
        """The person lies a few millimetres off the middle."""
        shift = rng.normal(scale=[5, 4, 4])
        axes = []
        for axis, (n, mm) in enumerate(zip(shape, spacing)):
            line = (np.arange(n) - (n - 1) / 2) * mm - shift[axis]
            axes.append(line.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)]))
        values = np.full(tuple(shape), AIR, np.float32)
        return cls(values, tuple(axes), build.scale, max(spacing))

    def paint(
        self,
        centre: Sequence[float],
        radii: Sequence[float],
        hu: float,
        *,
        organ: bool = True,
        share: float = 1.0,
    ) -> None:
        """Fills an ellipsoid (z, y, x), its edge as soft as a voxel; organs follow the body."""
        factor = self.scale if organ else 1.0
        away = sum(
            ((axis - factor * c) / (factor * r)) ** 2
            for axis, c, r in zip(self.axes, centre, radii)
        )
        soft = min(0.5, self.blur / (2 * factor * min(radii)))
        mask = step(1 - np.sqrt(away), soft)
        self.values[...] += np.float32(share) * mask * (np.float32(hu) - self.values)


_TALL = 1e4  # mm: an ellipsoid of this height is a cylinder


def _body(space: _Space, build: Build) -> None:
    """Skin, fat, the muscular wall and the fat inside it, and the spine."""
    rings = ((0.0, FAT), (build.fat, MUSCLE), (build.fat + 14, FAT))
    for depth, hu in rings:
        space.paint((0, 0, 0), (_TALL, build.deep - depth, build.wide - depth), hu, organ=False)
    back = build.deep - build.fat
    for x in (-34, 34):
        space.paint((0, back - 24, x), (_TALL, 22, 28), MUSCLE, organ=False)
    space.paint((0, back - 44, 0), (_TALL, 19, 22), build.bone, organ=False)
    space.paint((0, back - 18, 0), (_TALL, 8, 9), FLUID + 20, organ=False)
    space.paint((0, back - 4, 0), (_TALL, 12, 5), build.bone, organ=False)


def _organs(space: _Space, build: Build, rng: np.random.Generator) -> None:
    hu = rng.normal(scale=[8, 8, 12, 10]).tolist()
    vessels = 150 + hu[2]
    for x in (-70, 70):
        space.paint((125, 5, x), (62, 70, 56), -820)
    space.paint((48, -8, -90), (72, 74, 52), 110 + hu[0])
    space.paint((72, -34, -35), (34, 44, 70), 110 + hu[0])
    space.paint((45, 38, 100), (42, 34, 27), 118 + hu[1])
    space.paint((58, -34, 58), (40, 34, 36), 25)
    space.paint((66, -52, 52), (24, 12, 24), -700)
    for x in (-58, 60):
        space.paint((-42, 44, x), (54, 24, 26), 165 + hu[3])
        space.paint((-42, 44, x * 0.86), (24, 9, 12), 20)
    space.paint((0, 36, 9), (_TALL, build.vessel, build.vessel), vessels + 10)
    space.paint((0, 32, -18), (_TALL, 10, 13), vessels)


def _bowel(space: _Space, rng: np.random.Generator) -> None:
    """Loops with fluid or gas, in front and below."""
    for _ in range(int(rng.integers(9, 14))):
        centre = rng.uniform([-130, -62, -95], [-68, -8, 95]).tolist()
        radius = float(rng.uniform(11, 19))
        space.paint(centre, (radius, radius, 1.4 * radius), float(rng.normal(38, 10)))
        if rng.random() < 0.4:
            centre[1] -= 0.4 * radius
            space.paint(centre, (0.5 * radius, 0.45 * radius, 0.9 * radius), -650)


def _pancreas(space: _Space, build: Build, rng: np.random.Generator) -> np.ndarray:
    """Head, body and tail along a bent line; returns its (7, 3) points, head first."""
    line = np.array([(-26, -6, -36), (-16, -12, -26), (-4, -20, -10), (4, -24, 10),
                     (12, -20, 30), (20, -6, 50), (26, 8, 68)], float)  # fmt: skip
    line += rng.normal(scale=2, size=(1, 3))
    for point, radius in zip(line, (20, 17, 15, 14, 14, 14, 13)):
        space.paint(point.tolist(), (radius, radius, radius * 1.15), build.pancreas)
    return line


def _lesion(space: _Space, contrast: float, line: np.ndarray, rng: np.random.Generator) -> None:
    place = 0 if rng.random() < 0.7 else int(rng.integers(2, 7))
    centre = (line[place] + rng.normal(scale=3, size=3)).tolist()
    radius = float(rng.uniform(18, 28))
    space.paint(centre, (radius, radius, radius), LESION, share=contrast)
