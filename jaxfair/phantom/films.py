"""Drawn chest films with several findings, in the layouts of CheXpert, ChestX-ray14 and MIMIC-CXR.

Who is filmed is the same whatever the layout: persons with one or several studies, a study with
one frontal film and now and then a lateral one. Findings lie in the shares of `PREVALENCE`; they
run together in a person, and a large heart, congestion and effusions come more often with age.
AP films are more frequent where there is a finding. Sex and race have no part in any of it.

The planted gap is in the strength of all findings of the gap group. A linked finding
(`config.link_label`) is another plant: it follows the sex and chance alone, neither age, nor other
findings, nor the view, so that all but the finding itself is independent of it once the sex is
known (`linked.truth` says what follows). The tables also hold
faults of real ones: those of `people.ODDITIES`, lateral films, and PNGs in colour.
"""

import io
import pathlib
from statistics import NormalDist

import numpy as np
import pandas as pd
from PIL import Image, PngImagePlugin

from jaxfair.data import workers
from jaxfair.phantom import layouts, people, thorax, thorax_findings
from jaxfair.phantom.config import SITES, PhantomConfig

__all__ = ["PREVALENCE", "draw", "draw_table"]

REMARK = "PHANTOM: drawn by a program, no patient"
PREVALENCE = {  # share of studies
    "cardiomegaly": 0.28,
    "congestion": 0.20,
    "pleural_effusion_right": 0.17,
    "pleural_effusion_left": 0.15,
    "pneumonic_infiltrates_right": 0.17,
    "pneumonic_infiltrates_left": 0.14,
    "atelectasis_right": 0.14,
    "atelectasis_left": 0.12,
}
AGEING = {"cardiomegaly": 0.5, "congestion": 0.4, "pleural_effusion_right": 0.3,
          "pleural_effusion_left": 0.3}  # fmt: skip
"""Weight of age, in standard deviations, among what decides on a finding."""

OF_A_SITE = 1_000_000
"""Patients and films of the next site count from here on, so that nobody is at two sites."""

VISITS = {1: 0.55, 2: 0.25, 3: 0.14, 6: 0.06}


def draw(
    config: PhantomConfig, source: str, folder: pathlib.Path, *, progress: bool = True
) -> None:
    """Draws the films and writes them and the tables of the source into the empty `folder`."""
    layout = layouts.LAYOUTS[source]
    table = draw_table(config, laterals=layout.laterals)
    table["path"] = layout.place(table)
    share = np.random.default_rng([config.seed, 11]).uniform(layout.lowest, 1, len(table))
    table["height"] = np.round(share * config.pixels).astype(int)
    table["width"] = config.pixels
    table["colour"] = (source == "cxr14") & (table["index"] % 200 == 7)
    for parent in sorted({pathlib.PurePosixPath(path).parent for path in table["path"]}):
        (folder / parent).mkdir(parents=True)
    jobs = [(config, row, str(folder)) for row in table.to_dict("records")]
    for _ in workers.parallel(_write_film, jobs, label="draw PHANTOM", progress=progress):
        pass
    layout.write(table, config.seed, folder)


def draw_table(config: PhantomConfig, *, laterals: float = 0.0) -> pd.DataFrame:
    """Draws who is filmed and what the films show: one row per film.

    Args:
      config: of the phantom.
      laterals: share of studies with a lateral film after the frontal one; above 0 the first
        study has one.

    Returns:
      Columns of `people.draw_studies`, index, film (running number of the study's
      films), view (AP, PA or LATERAL), the findings of `PREVALENCE` (bool) and gap (bool).
    """
    site = SITES.index(config.link_site)
    rng = np.random.default_rng([config.seed, 10, site] if site else [config.seed, 10])
    studies = people.draw_studies(config.n_images, VISITS, rng=rng)
    studies = _with_findings(studies, config, rng)
    second = rng.random(len(studies)) < laterals
    second[0] = laterals > 0
    films = studies.loc[studies.index.repeat(1 + second)].head(config.n_images)
    films = films.reset_index(drop=True)
    films["film"] = films.groupby(["patient", "study"]).cumcount() + 1
    films.loc[films["film"] == 2, "view"] = "LATERAL"
    films["gap"] = people.in_gap(films, config.gap_group)
    films["index"] = np.arange(len(films))
    films[["patient", "index"]] += site * OF_A_SITE
    return films


def _with_findings(
    studies: pd.DataFrame, config: PhantomConfig, rng: np.random.Generator
) -> pd.DataFrame:
    """Adds findings, present where a sum of normals is among the highest, and the view."""
    person = studies["patient"].to_numpy() - 1
    frail = rng.standard_normal(person.max() + 1)[person]
    old = (studies["age"].to_numpy() - 56) / 19
    for name, share in PREVALENCE.items():
        own = rng.standard_normal(person.max() + 1)[person]
        total = 0.4 * frail + 0.6 * own + 0.7 * rng.standard_normal(len(studies))
        total += AGEING.get(name, 0.0) * old
        studies[name] = total > np.quantile(total, 1 - share)
    if config.link_label:
        studies[config.link_label] = _linked(studies, config)
    others = [name for name in PREVALENCE if name != config.link_label]
    ill = studies[others].any(axis=1).to_numpy()
    lying = rng.random(len(studies)) < np.where(ill, 0.65, 0.35)
    studies["view"] = np.where(lying, "AP", "PA")
    return studies


def _linked(studies: pd.DataFrame, config: PhantomConfig) -> np.ndarray:
    """Who has the linked finding: by his sex's probability, and alike in a person's studies."""
    rng = np.random.default_rng([config.seed, 14, SITES.index(config.link_site)])
    person = studies["patient"].to_numpy() - 1
    total = 0.6 * rng.standard_normal(person.max() + 1)[person]
    total += 0.8 * rng.standard_normal(len(studies))
    edges = {sex: NormalDist().inv_cdf(1 - rate) for sex, rate in config.rates.items()}
    return total > studies["sex"].map(edges).to_numpy()


def _write_film(job: tuple[PhantomConfig, dict, str]) -> None:
    config, row, root = job
    person = np.random.default_rng([config.seed, 12, row["patient"]])
    rng = np.random.default_rng([config.seed, 13, row["index"]])
    body = thorax.draw_anatomy(row["sex"], row["age"], rng=person)
    if row["view"] == "LATERAL":
        film = thorax_findings.draw_lateral(body, config.pixels, rng=rng)
    else:
        findings = [name for name in thorax_findings.FINDINGS if row[name]]
        contrast = config.gap_contrast if row["gap"] else 1.0
        own = {config.link_label: config.link_contrast}
        film = thorax_findings.draw_frontal(
            body, row["view"], findings, config.pixels, contrast=contrast, own=own, rng=rng
        )
    top = (config.pixels - row["height"]) // 2
    picture = np.round(255 * film[top : top + row["height"]]).astype(np.uint8)
    path = pathlib.Path(root) / row["path"]
    path.write_bytes(_encoded(picture, path.suffix, colour=row["colour"]))


def _encoded(picture: np.ndarray, suffix: str, *, colour: bool) -> bytes:
    """Grey JPEG or PNG; `colour` stores the same grey levels as RGBA, as some real PNGs do."""
    image, buffer = Image.fromarray(picture), io.BytesIO()
    if suffix == ".jpg":
        image.save(buffer, format="JPEG", quality=92, comment=REMARK.encode())
        return buffer.getvalue()
    remark = PngImagePlugin.PngInfo()
    remark.add_text("Comment", REMARK)
    (image.convert("RGBA") if colour else image).save(buffer, format="PNG", pnginfo=remark)
    return buffer.getvalue()
