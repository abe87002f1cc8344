"""Chest films with several findings at once, each on its side; no patient is behind them."""

from collections.abc import Collection, Mapping

import numpy as np

from jaxfair.phantom import thorax
from jaxfair.phantom.thorax import Anatomy, Scene, blob, grain, radius, step

__all__ = ["FINDINGS", "SIDES", "WIDER", "draw_frontal", "draw_lateral"]

SIDES = ("right", "left")
"""Of the patient, in the order in which they stand on the film from left to right."""

FINDINGS = (
    "cardiomegaly",
    "congestion",
    "pleural_effusion_right",
    "pleural_effusion_left",
    "pneumonic_infiltrates_right",
    "pneumonic_infiltrates_left",
    "atelectasis_right",
    "atelectasis_left",
)

WIDER = (0.45, 0.75)
"""By how much cardiomegaly widens a heart, uniformly: share of its own width."""


def draw_frontal(
    body: Anatomy,
    view: str,
    findings: Collection[str],
    size: int,
    *,
    contrast: float = 1.0,
    own: Mapping[str, float] | None = None,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draws one AP or PA film; the views differ as `thorax.draw_film` says.

    Cardiomegaly widens the heart by 45 to 75 %. Congestion is a haze around both hili with
    coarse vessels. An effusion makes the base of one side opaque, up to a meniscus. Infiltrates
    are one to three patches with a torn edge in one lung. Atelectasis is one or two bands
    across one lung whose half of the diaphragm stands higher.

    Args:
      body: from `thorax.draw_anatomy`.
      view: "AP" or "PA".
      findings: names of `FINDINGS`.
      size: pixels per side.
      contrast: strength of all findings, 1 as written above; below 1 they are harder to see.
      own: finding -> a factor on its strength alone.
      rng: everything random comes from it, for each finding from a stream of its own, so that
        films that differ in one finding are equal elsewhere.

    Returns:
      (size, size) float32 in [0, 1], dense tissue bright, the patient's right on the left.
    """
    streams = dict(zip(FINDINGS, rng.spawn(len(FINDINGS))))
    strength = {name: contrast * (own or {}).get(name, 1.0) for name in FINDINGS}
    if view == "AP":
        body = body._replace(heart=body.heart * 1.15, lung=body.lung * 0.92)
    if "cardiomegaly" in findings:
        wider = strength["cardiomegaly"] * streams["cardiomegaly"].uniform(*WIDER)
        body = body._replace(heart=body.heart * (1 + wider))
    scene = Scene.pose(size, rng)
    lift = [0.0, 0.0]
    for side, name in enumerate(SIDES):
        if f"atelectasis_{name}" in findings:
            band = f"atelectasis_{name}"
            lift[side] = strength[band] * streams[band].uniform(0.12, 0.22)
    lungs, domes = thorax.draw_lungs(scene, body, lift)
    film = thorax.draw_tissue(scene, body, lungs, domes, rng) + thorax.draw_bones(scene, body)
    if "congestion" in findings:
        film = _shaded(film, strength["congestion"] * _haze(scene, lungs, streams["congestion"]))
    for side, name in enumerate(SIDES):
        for kind, draw in _ONE_SIDED.items():
            own_name = f"{kind}_{name}"
            if own_name in findings:
                shadow = draw(scene, side, lungs[side], domes[side], streams[own_name])
                film = _shaded(film, strength[own_name] * shadow)
    return thorax.expose(film, view, rng)


def draw_lateral(body: Anatomy, size: int, *, rng: np.random.Generator) -> np.ndarray:
    """Draws a film from the side, facing left, without any finding.

    Args:
      body: from `thorax.draw_anatomy`.
      size: pixels per side.
      rng: everything random comes from it.

    Returns:
      (size, size) float32 in [0, 1], dense tissue bright.
    """
    scene = Scene.pose(size, rng)
    x, y = scene.x, scene.y
    film = 0.66 * step(1 - radius(x - 0.03, y - 0.25, 0.66, 1.25), 0.2)
    dome = -0.80 + body.lung + 0.10 + 0.30 * x + 0.35 * x**2
    lung = step(1 - radius(x - 0.06, y + 0.05, 0.50, 0.85), 0.12) * step(dome - y, 0.02)
    film -= lung * (0.36 + 0.03 * grain(rng, size, 5) - 0.02 * grain(rng, size, 28))
    film += 0.24 * lung * step(1 - radius(x + 0.16, y - 0.16, body.heart * 0.95, 0.30), 0.15)
    film += 0.08 * lung * blob(x - 0.05, y + 0.08, 0.12, 0.14)
    spine = step(0.10 - np.abs(x - 0.40 + 0.10 * y**2), 0.04)
    film += spine * (0.12 + 0.03 * np.cos(y * 2 * np.pi / body.ribs)) * step(y + 0.95, 0.05)
    return thorax.expose(film, "PA", rng)


def _shaded(film: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """Adds a shadow where there is air; over heart and ribs less of it is seen."""
    return film + shadow * np.clip((0.72 - film) / 0.40, 0, 1)


def _haze(scene: Scene, lungs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    hili = blob(np.abs(scene.x) - 0.30, scene.y + 0.02, 0.24, 0.36)
    bright = float(rng.uniform(0.20, 0.30))
    texture = 1 + 0.22 * grain(rng, scene.size, 30)
    return bright * hili * texture * np.maximum(lungs[0], lungs[1])


def _effusion(
    scene: Scene, side: int, lung: np.ndarray, dome: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Fluid with a meniscus that climbs along the chest wall."""
    level = float(rng.uniform(0.16, 0.40))
    meniscus = dome.max() - level - 0.6 * np.clip(np.abs(scene.x) - 0.45, 0, None)
    return 0.36 * lung * step(scene.y - meniscus, 0.04)


def _infiltrates(
    scene: Scene, side: int, lung: np.ndarray, dome: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    sign, total = (-1, 1)[side], np.zeros_like(lung)
    for _ in range(int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))):
        x, y = sign * float(rng.uniform(0.28, 0.56)), float(rng.triangular(-0.45, 0.05, 0.30))
        wide, tall, bright = rng.uniform([0.15, 0.15, 0.24], [0.26, 0.30, 0.40]).tolist()
        torn = np.exp(0.6 * grain(rng, scene.size, 9))
        cloud = np.exp(-((radius(scene.x - x, scene.y - y, wide, tall) * torn) ** 1.5))
        total = np.maximum(total, bright * cloud)
    return total * (1 + 0.25 * grain(rng, scene.size, 40)) * lung


def _bands(
    scene: Scene, side: int, lung: np.ndarray, dome: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    sign, total = (-1, 1)[side], np.zeros_like(lung)
    for _ in range(int(rng.integers(1, 3))):
        above, slope, bend = rng.uniform([0.04, -0.25, -0.3], [0.40, 0.25, 0.3]).tolist()
        half, bright = rng.uniform([0.028, 0.24], [0.045, 0.36]).tolist()
        across = sign * scene.x - 0.46
        line = scene.y - (dome.min() - above) - slope * across - bend * across**2
        ends = step(float(rng.uniform(0.22, 0.34)) - np.abs(across), 0.06)
        total = np.maximum(total, bright * np.exp(-((line / half) ** 2)) * ends)
    return total * lung


_ONE_SIDED = {
    "pleural_effusion": _effusion,
    "pneumonic_infiltrates": _infiltrates,
    "atelectasis": _bands,
}
