"""What a report says of an embedding: read from leakage.csv alone."""

import dataclasses
import functools

import numpy as np
import pandas as pd
import pytest

from jaxfair import report
from jaxfair.fairness.leakage import Embedding, leakage_table
from jaxfair.files import write_table
from jaxfair.report.leakage import leakage_details, leakage_section, shown_leakage
from jaxfair.report.plots import as_png
from tests.made_runs import make_run

TITLE = "what the embedding tells about patients"


@functools.cache
def probed(*, seed=0, n=600, leak=0.0, tasks=("mass",)) -> pd.DataFrame:
    """leakage.csv of a run, of its baseline, and of pixels."""
    rng = np.random.default_rng(seed)
    sex = rng.integers(0, 2, n)
    people = pd.DataFrame(
        {
            "patient_id": np.arange(n).astype(str),
            "split": np.where(np.arange(n) % 3 == 0, "validation", "test"),
            "sex": np.array(["F", "M"])[sex],
            "race": "asian",
            **{f"label_{task}": rng.integers(0, 2, n).astype(float) for task in tasks},
        }
    )
    z = rng.normal(size=(n, 3))
    found = [
        Embedding("disease", z, probes=("linear",), control=True),
        Embedding("features", z + 2 * sex[:, None], "baseline", "erm", ("linear",)),
        Embedding("mean", z[:, :1], "pixels", probes=("linear",)),
        Embedding("grid", z + sex[:, None], "pixels", probes=("linear",)),
    ]
    return leakage_table(people, found, ["sex", "race"], tasks, n_draws=50)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = make_run(tmp_path_factory.mktemp("leakage") / "run", n=200, maps=False)
    write_table(made / "leakage.csv", probed())
    return made


@pytest.fixture(scope="module")
def run(folder):
    return report.load_run(folder)


def test_the_first_table_has_the_run_its_baseline_pixels_and_chance(run):
    shown = shown_leakage(run.leakage)
    assert list(shown["attribute"]) == ["sex", "race"]
    sex, race = (row for _, row in shown.iterrows())
    stored = probed()
    stored = stored[(stored["label"] == "within") & (stored["attribute"] == "sex")]
    value = stored.set_index("embedding")["auroc"]
    assert str(sex["this run: linear"]).startswith(f"{value['disease']:.3f} [")
    assert str(sex["baseline erm: linear"]).startswith(f"{value['features']:.3f} [")
    assert str(sex["8 x 8 means of pixels: linear"]).startswith(f"{value['grid']:.3f} [")
    row = stored.set_index("embedding").loc["disease"]
    assert sex["chance: linear"] == f"{row['chance']:.3f} ({row['chance_95']:.3f})"
    assert str(race["this run: linear"]) == "undefined" and "everybody is asian" in race["note"]


def test_the_section_follows_the_results_and_says_what_is_no_evidence(folder):
    text = (report.run([folder], folder) / "report.md").read_text()
    section = text.split(TITLE)[1].split("\n## ")[0]
    assert "An adversary's own loss is no evidence" in section
    assert "no guarantee of the training covers them" in section
    assert (folder / "plots" / "run.leakage.png").is_file() and "run.leakage.png" in section
    assert text.index("results by group") < text.index(TITLE) < text.index("population and flow")
    assert "every probe of the embedding" in text


def test_every_row_stands_in_the_details_and_undefined_is_said_so(run):
    (section,) = leakage_details(run)
    shown = section.blocks[0].shown
    assert len(shown) == len(probed())
    assert (
        (shown["AUROC [95 %]"].map(str) == "undefined").sum() == probed()["auroc"].isna().sum() > 0
    )


def test_several_labels_have_a_line_each():
    shown = shown_leakage(probed(tasks=("mass", "node")))
    assert shown[["attribute", "label"]].to_numpy().tolist() == [
        ["sex", "mass"], ["sex", "node"], ["race", "mass"], ["race", "node"],
    ]  # fmt: skip


@pytest.mark.parametrize("embeds", [True, False])
def test_a_run_that_was_not_probed_says_how_if_it_has_an_embedding(run, embeds):
    other = dataclasses.replace(run, leakage=None, model={"embeds": embeds})
    section = leakage_section(other)
    assert (section is not None) == embeds
    if section is not None:
        assert "python -m jaxfair.leakage --workdir RUN" in section.blocks[0].text
    assert leakage_details(other) == []


def test_where_nothing_could_be_asked_the_table_and_the_plot_still_stand(run):
    nothing = probed().assign(auroc=np.nan, ci_low=np.nan, ci_high=np.nan, chance_95=np.nan)
    section = leakage_section(dataclasses.replace(run, leakage=nothing))
    assert (section.blocks[1].shown["this run: linear"].map(str) == "undefined").all()
    assert as_png(section.blocks[2].figure).startswith(b"\x89PNG")
