"""A chest film drawn from a parametric model of the thorax; no patient is behind it."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    "FINDINGS",
    "HEARTS",
    "Anatomy",
    "Scene",
    "blob",
    "draw_anatomy",
    "draw_bones",
    "draw_film",
    "draw_lungs",
    "draw_tissue",
    "expose",
    "grain",
    "radius",
    "step",
]

FINDINGS = ("normal", "opacity", "other")
HEARTS = 0.07
"""Standard deviation of the width of hearts from person to person, as a share of their mean."""


class Anatomy(NamedTuple):
    """What is the same on every film of one person; lengths in half image widths."""

    sex: str
    age: float
    chest: float  # half width of the rib cage
    lung: float  # height of the lungs
    heart: float  # half width of the heart
    knob: float  # radius of the aortic arch
    bone: float  # brightness of ribs and clavicles
    soft: float  # brightness that the soft tissue of the chest wall adds
    ribs: float  # distance between ribs


def draw_anatomy(sex: str, age: float, *, rng: np.random.Generator) -> Anatomy:
    """Draws a person. Appearance depends a little on sex and age, and only as written here.

    Sex: women have a chest 5 % narrower and a soft brightening over the lower lungs. Age:
    children under 18 have a smaller chest and a relatively larger heart; bones fade by 35 %
    between 40 and 90, and over the same years the aortic arch grows by half and the lungs
    lengthen by 6 %.
    """
    woman, child = sex == "F", max(0.0, (18 - age) / 18)
    old = float(np.clip((age - 40) / 50, 0, 1))
    vary = rng.normal(size=7).tolist()
    return Anatomy(
        sex=sex,
        age=age,
        chest=(0.80 - 0.04 * woman) * (1 - 0.14 * child) * (1 + 0.03 * vary[0]),
        lung=1.18 * (1 - 0.10 * child + 0.06 * old) * (1 + 0.03 * vary[1]),
        heart=0.27 * (1 + 0.12 * child) * (1 + HEARTS * vary[2]),
        knob=0.085 * (1 - 0.3 * child + 0.5 * old) * (1 + 0.1 * vary[3]),
        bone=0.085 * (1 - 0.3 * child - 0.35 * old) * (1 + 0.1 * vary[4]),
        soft=0.055 * woman * (1 - 0.8 * child) * math.exp(0.25 * vary[5]),
        ribs=0.165 * (1 - 0.12 * child) * (1 + 0.03 * vary[6]),
    )


def draw_film(
    body: Anatomy,
    view: str,
    finding: str,
    size: int,
    *,
    contrast: float = 1.0,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws one film of a person.

    View: AP films (portable, lying) have a heart 15 % wider, lungs 8 % shorter, more noise and
    less contrast than PA films.

    Args:
      body: from `draw_anatomy`.
      view: "AP" or "PA".
      finding: "normal"; "opacity": one to three soft bright consolidations inside the lungs;
        "other": a large heart, an effusion, a nodule or a raised diaphragm.
      size: pixels per side.
      contrast: factor on the brightness of opacities; below 1 they are harder to see.
      rng: everything random comes from it.

    Returns:
      (size, size) float32 in [0, 1], dense tissue bright.
    """
    other = str(rng.choice(["heart", "effusion", "nodule", "diaphragm"]))
    other = other if finding == "other" else ""
    if view == "AP":
        body = body._replace(heart=body.heart * 1.15, lung=body.lung * 0.92)
    if other == "heart":
        body = body._replace(heart=body.heart * 1.4)
    scene = Scene.pose(size, rng)
    raised = int(rng.integers(2)) if other == "diaphragm" else -1
    lungs, domes = draw_lungs(scene, body, [0.28 * (side == raised) for side in range(2)])
    film = draw_tissue(scene, body, lungs, domes, rng)
    film += draw_bones(scene, body)
    if finding == "opacity":
        film += contrast * _opacities(scene, lungs, rng)
    if other == "effusion":
        film += _effusion(scene, lungs, domes, rng)
    if other == "nodule":
        film += _nodules(scene, lungs, rng)
    return expose(film, view, rng)


@dataclasses.dataclass(frozen=True)
class Scene:
    """Coordinates of every pixel: x to the right, y down, both about -1 to 1 on the film."""

    x: np.ndarray
    y: np.ndarray

    @classmethod
    def pose(cls, size: int, rng: np.random.Generator) -> "Scene":
        """The patient stands a little shifted, turned and nearer or farther."""
        line = np.linspace(-1, 1, size, dtype=np.float32)
        turn, dx, dy = rng.normal(scale=[0.02, 0.02, 0.025]).tolist()
        zoom = 1 + 0.025 * float(rng.normal())
        x, y = line[None, :] - dx, line[:, None] - dy
        return cls(zoom * (x + turn * y), zoom * (y - turn * x))

    @property
    def size(self) -> int:
        return self.x.shape[0]


def draw_lungs(
    scene: Scene, body: Anatomy, lift: Sequence[float] = (0.0, 0.0)
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draws both lungs, the one on the film's left (the patient's right) first.

    Args:
      scene: coordinates.
      body: whose lungs.
      lift: how much higher each half of the diaphragm stands than it should.

    Returns:
      Two soft masks (size, size), and the heights of the two domes at every pixel.
    """
    top, masks, domes = -0.80, [], []
    for side, sign in enumerate((-1, 1)):
        base = top + body.lung + (0.05 if sign > 0 else 0.0) - lift[side]
        middle = sign * 0.50 * body.chest
        depth = (scene.y - top) / (base - top)
        half = 0.43 * body.chest * (0.62 + 0.42 * np.clip(depth, 0, 1.1))
        across = (scene.x - middle - sign * 0.05 * np.clip(depth, 0, 1)) / half
        round_top = 1 - across**2 - np.clip(1 - depth / 0.45, 0, None) ** 2
        dome = base - 0.17 * (1 - np.clip(across, -1.2, 1.2) ** 2)
        masks.append(step(round_top, 0.10) * step(dome - scene.y, 0.02))
        domes.append(dome)
    return masks, domes


def draw_tissue(
    scene: Scene,
    body: Anatomy,
    lungs: list[np.ndarray],
    domes: list[np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Chest wall, belly, lungs with their vessels, spine, heart, aorta, trachea and breasts."""
    x, y = scene.x, scene.y
    wall = body.chest * (1.08 + 0.10 * np.clip(-y - 0.2, 0, 1))
    film = 0.62 * step(1 - (np.abs(x) / wall) ** 4 - np.clip(-y - 0.62, 0, 1) ** 2 * 3, 0.25)
    film *= 1 + 0.18 * step(y - np.where(x < 0, domes[0], domes[1]), 0.03)
    air = np.maximum(lungs[0], lungs[1])
    hili = sum(blob(x - s * 0.2, y + 0.05, 0.16, 0.26) for s in (-1, 1))
    vessels = grain(rng, scene.size, 28) * (0.05 * hili + 0.016) + 0.07 * hili
    film -= air * (0.40 + 0.03 * grain(rng, scene.size, 5) - vessels)
    film += 0.10 * step(0.085 - np.abs(x), 0.02) + 0.16 * step(0.15 - np.abs(x), 0.035) * air
    film += 0.30 * air * step(1 - radius(x - 0.11, y - 0.20, body.heart, 0.32), 0.12)
    film += 0.20 * air * step(1 - radius(x - 0.13, y + 0.33, body.knob, body.knob), 0.3)
    film -= 0.12 * step(0.045 - np.abs(x), 0.015) * step(-0.28 - y, 0.05) * step(y + 0.95, 0.05)
    for sign in (-1, 1):
        film += body.soft * step(
            1 - radius(x - sign * 0.44 * body.chest, y - 0.22, 0.34 * body.chest, 0.30), 0.18
        )
    return film


def draw_bones(scene: Scene, body: Anatomy) -> np.ndarray:
    """Ribs as bands that fall from the spine outwards (behind) and inwards (in front)."""
    x, y = np.abs(scene.x) / body.chest, scene.y
    cage = step(1.02 - x, 0.03) * step(y + 0.86, 0.04) * step(0.45 - y, 0.12)
    behind = _bands((y + 0.10 * (x - 0.35) ** 2 - 0.30 * x * (1 - 0.5 * x)) / body.ribs, 0.30)
    front = _bands((y + 0.42 * x**2) / body.ribs + 0.4, 0.24) * step(x - 0.35, 0.1)
    clavicle = np.exp(-(((y + 0.66 + 0.10 * (1 - x)) / 0.035) ** 2)) * step(0.95 - x, 0.05)
    return body.bone * (cage * (behind + 0.6 * front) + 1.1 * clavicle * step(x - 0.08, 0.03))


def _opacities(scene: Scene, lungs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One to three consolidations: blobs with a torn edge, more often low in the lung."""
    total = np.zeros_like(lungs[0])
    for _ in range(int(rng.choice([1, 2, 3], p=[0.45, 0.4, 0.15]))):
        x = float(rng.choice([-1, 1]) * rng.uniform(0.28, 0.56))
        y = float(rng.triangular(-0.45, 0.15, 0.34))
        wide, tall, bright = rng.uniform([0.14, 0.14, 0.18], [0.28, 0.32, 0.36]).tolist()
        torn = np.exp(0.6 * grain(rng, scene.size, 9))
        cloud = np.exp(-((radius(scene.x - x, scene.y - y, wide, tall) * torn) ** 1.5))
        total = np.maximum(total, bright * cloud)
    texture = 1 + 0.20 * grain(rng, scene.size, 40)
    return total * texture * np.maximum(lungs[0], lungs[1])


def _effusion(
    scene: Scene, lungs: list[np.ndarray], domes: list[np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    side, level = int(rng.integers(2)), float(rng.uniform(0.05, 0.25))
    meniscus = domes[side].max() - level - 0.5 * np.clip(np.abs(scene.x) - 0.45, 0, None)
    return 0.28 * lungs[side] * step(scene.y - meniscus, 0.04)


def _nodules(scene: Scene, lungs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    total = np.zeros_like(lungs[0])
    for _ in range(int(rng.integers(1, 4))):
        x = float(rng.choice([-1, 1]) * rng.uniform(0.22, 0.6))
        y, reach = rng.uniform([-0.55, 0.03], [0.3, 0.06]).tolist()
        total += 0.22 * step(1 - radius(scene.x - x, scene.y - y, reach, reach), 0.3)
    return total * np.maximum(lungs[0], lungs[1])


def expose(film: np.ndarray, view: str, rng: np.random.Generator) -> np.ndarray:
    """Exposure, processing and noise differ from film to film, whatever it shows."""
    lying = view == "AP"
    wobble, offset, bend = rng.normal(scale=[0.05, 0.03, 0.08]).tolist()
    gain = (0.86 if lying else 0.94) * (1 + wobble)
    film = np.clip((0.07 if lying else 0.02) + offset + gain * film, 0.001, 1) ** math.exp(bend)
    noise = rng.standard_normal(film.shape, dtype=np.float32)
    film += (0.022 if lying else 0.014) * noise + 0.008 * grain(rng, film.shape[0], 64)
    return np.clip(film, 0, 1).astype(np.float32)


def step(value: np.ndarray, soft: float) -> np.ndarray:
    """0 where `value` is negative, 1 where positive, over a width of about 2 `soft`."""
    ramp = np.asarray(value, np.float32) * (0.5 / soft)
    ramp += 0.5
    np.clip(ramp, 0, 1, out=ramp)
    slope = 3 - 2 * ramp
    ramp *= ramp
    ramp *= slope
    return ramp


def radius(dx: np.ndarray, dy: np.ndarray, wide: float, tall: float) -> np.ndarray:
    """Squared distance from an ellipse's middle: 1 on its edge."""
    return (dx / wide) ** 2 + (dy / tall) ** 2


def blob(dx: np.ndarray, dy: np.ndarray, wide: float, tall: float) -> np.ndarray:
    """A soft ellipse: 1 in the middle, 1/e on its edge."""
    return np.exp(-radius(dx, dy, wide, tall))


def _bands(phase: np.ndarray, width: float) -> np.ndarray:
    away = np.abs(phase - np.round(phase))
    return step(width - away, 0.10)


def grain(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise (size, size), standard deviation about 0.7, `cells` bumps across."""
    weights = _between(size, cells)
    return weights @ rng.standard_normal((cells, cells), dtype=np.float32) @ weights.T


@functools.lru_cache(maxsize=32)
def _between(size: int, cells: int) -> np.ndarray:
    """(size, cells) weights of linear interpolation, smoothed."""
    place = np.linspace(0, cells - 1, size)
    low = np.minimum(place.astype(int), cells - 2)
    part = place - low
    part = part * part * (3 - 2 * part)
    weights = np.zeros((size, cells), np.float32)
    weights[np.arange(size), low] = 1 - part
    weights[np.arange(size), low + 1] += part
    return weights
