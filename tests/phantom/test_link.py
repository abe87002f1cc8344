"""A finding that is linked with the sex: what is drawn, and what follows from it beforehand."""

import dataclasses
import functools
import hashlib

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import roc_auc_score

from jaxfair.data.config import make_data_config
from jaxfair.data.dataset import open_dataset
from jaxfair.errors import InputError
from jaxfair.experiment import DRAWN_COLUMNS
from jaxfair.phantom import films, layouts, people, thorax, thorax_findings
from jaxfair.phantom.config import SITES, PhantomConfig
from jaxfair.phantom.linked import truth
from jaxfair.phantom.write import ready
from tests.phantom.test_films import films_of

LINKED = PhantomConfig(
    n_images=30_000, pixels=48, gap_group="", link_label="cardiomegaly", link=0.8, link_cause=0.25
)
OTHERS = [name for name in thorax_findings.FINDINGS if name != "cardiomegaly"]


@functools.cache
def table_of(site="selected", **fields):
    return films.draw_table(dataclasses.replace(LINKED, link_site=site, **fields))


def difference(table, column="cardiomegaly"):
    return table.groupby("sex")[column].mean()["F"] - table.groupby("sex")[column].mean()["M"]


@pytest.mark.parametrize(("site", "rho"), [*zip(SITES, (0.8, 0.2, 0.0))])
def test_women_have_the_linked_finding_more_often_by_what_is_chosen(site, rho):
    table = table_of(site)
    assert difference(table) == pytest.approx(rho, abs=0.02)
    assert truth(LINKED).rho[site] == pytest.approx(rho)
    for sex, rate in dataclasses.replace(LINKED, link_site=site).rates.items():
        own = table[table["sex"] == sex]["cardiomegaly"]
        assert own.mean() == pytest.approx(rate, abs=0.015)


def test_nothing_but_the_sex_goes_with_the_linked_finding():
    """Else a score could tell the sex within a label by other ways than those that are computed."""
    table = table_of()
    for _, own in table.groupby("sex"):
        others = own[OTHERS].assign(age=own["age"], portable=own["view"] == "AP").astype(float)
        assert others.corrwith(own["cardiomegaly"].astype(float)).abs().max() < 0.03
    for name in OTHERS:
        assert abs(difference(table, name)) < 0.03
    person = table.drop_duplicates(["patient", "study"])
    again = person.merge(person, on="patient").query("study_x < study_y")
    women = again[again["sex_x"] == "F"]
    assert women["cardiomegaly_x"].corr(women["cardiomegaly_y"]) > 0.1, "a person is like himself"


def test_nobody_is_at_two_sites():
    for column in ("patient", "index"):
        seen = [set(table_of(site)[column]) for site in SITES]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    ids = [layouts._mimic_ids(table_of(site)) for site in SITES]
    for column in ids[0]:
        assert sum(part[column].nunique() for part in ids) == pd.concat(ids)[column].nunique()


def test_cells_of_label_and_sex_are_filled_in_a_test_set_of_a_tenth():
    """400 in each are what equalized odds need; the phantom is drawn in about a minute."""
    table = table_of(n_images=100_000)
    cells = table[table["patient"] % 10 == 0].groupby(["cardiomegaly", "sex"]).size()
    assert len(cells) == 4 and cells.min() >= 400


def test_a_detector_that_knows_no_sex_still_tells_it_by_the_formula():
    rng = np.random.default_rng(0)
    for site in SITES:
        table = table_of(site)
        score = 1.3 * table["cardiomegaly"] + rng.normal(size=len(table))
        area = roc_auc_score(table["cardiomegaly"], score)
        found = truth(LINKED, detector=area)
        woman = table["sex"] == "F"
        assert roc_auc_score(woman, score) == pytest.approx(found.leak[site], abs=0.015)
        for label in (True, False):
            here = table["cardiomegaly"] == label
            within = roc_auc_score(woman[here], score[here])
            assert within == pytest.approx(found.leak_within, abs=0.03)


def crowd(site, law, n=400_000, seed=0):
    """Sex, label and log ratio of many people, drawn one by one as the drawing says."""
    rng = np.random.default_rng(seed)
    woman = rng.random(n) < people.WOMEN
    rates = dataclasses.replace(LINKED, link_site=site).rates
    ill = rng.random(n) < np.where(woman, rates["F"], rates["M"])
    return woman, ill, law(ill, rng)


def normal(ill, rng):
    """A score of AUROC .9."""
    apart = 1.8124
    return apart * (rng.normal(size=len(ill)) + apart * ill) - apart**2 / 2


def heart(ill, rng):
    """Log ratio of the width of a heart, by histograms of other people."""
    edges = np.linspace(0.6, 1.8, 241)

    def widths(ill):
        own = 1 + thorax.HEARTS * rng.normal(size=len(ill))
        return own * (1 + ill * LINKED.link_contrast * rng.uniform(0.45, 0.75, len(ill)))

    known = [np.histogram(widths(np.full(10**6, y)), edges)[0] + 0.5 for y in (False, True)]
    return np.log(known[1] / known[0])[np.digitize(widths(ill), edges) - 1]


@pytest.mark.parametrize(("law", "detector"), [(normal, 0.9), (heart, None)])
def test_what_is_computed_is_what_many_drawn_people_show(law, detector):
    found, odds = truth(LINKED, detector=detector), np.log(9.0)
    for site in SITES:
        woman, ill, ratio = crowd(site, law)
        assert roc_auc_score(ill, ratio) == pytest.approx(found.detector, abs=0.003)
        shortcut = ratio + np.where(woman, odds, -odds)
        assert roc_auc_score(ill, shortcut) == pytest.approx(found.shortcut[site], abs=0.004)
        if site == "selected":
            trials = np.linspace(-3, 3, 121)
            youden = [(shortcut[ill] >= t).mean() - (shortcut[~ill] >= t).mean() for t in trials]
            chosen = shortcut >= trials[np.argmax(youden)]
        else:
            chosen = shortcut >= trials[np.argmax(youden)]
        gaps = [
            chosen[woman & (ill == y)].mean() - chosen[~woman & (ill == y)].mean() for y in (0, 1)
        ]
        assert max(gaps) == pytest.approx(found.equalized_odds, abs=0.03)


def test_the_best_of_a_site_is_the_detector_where_nothing_is_linked():
    found = truth(LINKED)
    assert found.best["independent"] == pytest.approx(found.detector)
    assert found.best["selected"] == found.shortcut["selected"] > found.best["unselected"]
    assert (
        found.detector < found.best["unselected"] and found.shortcut["independent"] < found.detector
    )
    nothing = truth(dataclasses.replace(LINKED, link=0.0))
    assert nothing.equalized_odds == pytest.approx(0, abs=1e-9)
    assert set(nothing.leak.values()) == {0.5}
    assert nothing.shortcut == pytest.approx(dict.fromkeys(SITES, nothing.detector))


def test_a_strength_of_its_own_changes_that_finding_alone():
    body = thorax.draw_anatomy("F", 50, rng=np.random.default_rng(0))
    draw = lambda found, own: thorax_findings.draw_frontal(
        body, "PA", found, 64, own=own, rng=np.random.default_rng(1)
    )
    both = ["congestion", "pneumonic_infiltrates_left"]
    faint = {"pneumonic_infiltrates_left": 1e-9}
    assert np.abs(draw(both, faint) - draw(["congestion"], None)).max() < 1e-6
    assert (draw(both, {"cardiomegaly": 0.1}) == draw(both, None)).all()
    healthy = films_of([])
    assert np.abs(films_of(["cardiomegaly"]) - healthy).mean() > 0


def drawn(site, n, seed=0):
    """Pixels of frontal films at 24 px, label and sex."""
    config = dataclasses.replace(LINKED, link_site=site, n_images=n, pixels=48, seed=seed)
    table, pixels = films.draw_table(config), []
    for row in table.to_dict("records"):
        body = thorax.draw_anatomy(
            row["sex"], row["age"], rng=np.random.default_rng([seed, 12, row["patient"]])
        )
        found = ["cardiomegaly"] if row["cardiomegaly"] else []
        rng = np.random.default_rng([seed, 13, row["index"]])
        own = {"cardiomegaly": config.link_contrast}
        film = thorax_findings.draw_frontal(body, row["view"], found, 48, own=own, rng=rng)
        pixels.append(film.reshape(24, 2, 24, 2).mean(axis=(1, 3)).ravel())
    x = np.stack(pixels)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    return x, table["cardiomegaly"].to_numpy(), (table["sex"] == "F").to_numpy()


def test_the_sex_is_seen_and_a_classifier_takes_the_shortcut():
    """A linear model of small films: it gains by the sex here, and loses by it elsewhere."""
    x, ill, woman = drawn("selected", 1200)
    other, ill_there, woman_there = drawn("independent", 900)
    model = lambda target: RidgeClassifier(alpha=20.0).fit(x[:900], target[:900])
    sex = model(woman).decision_function(other)
    assert roc_auc_score(woman_there, sex) > 0.9
    taken = model(ill)
    here, there = taken.decision_function(x[900:]), taken.decision_function(other)
    assert roc_auc_score(ill[900:], here) > roc_auc_score(ill_there, there) + 0.1
    chosen = there >= 0
    gaps = [
        chosen[woman_there & (ill_there == y)].mean()
        - chosen[~woman_there & (ill_there == y)].mean()
        for y in (False, True)
    ]
    assert max(gaps) > 0.15
    fair = RidgeClassifier(alpha=20.0).fit(other[:600], ill_there[:600])
    assert roc_auc_score(ill_there[600:], fair.decision_function(other[600:])) > 0.75


@pytest.mark.slow
def test_over_five_seeds_films_show_what_the_formulas_say():
    """A linear detector that was trained where nothing is linked, and one that was not."""
    found, taken = [], []
    for seed in range(5):
        x, ill, woman = drawn("selected", 2500, seed)
        other, ill_there, woman_there = drawn("independent", 2500, seed)
        fit = lambda x, y: RidgeClassifier(alpha=20.0).fit(x, y).decision_function
        detector, shortcut = fit(other[:1500], ill_there[:1500]), fit(x[:1500], ill[:1500])
        held_out, known = other[1500:], (ill_there[1500:], woman_there[1500:])
        area = roc_auc_score(known[0], detector(held_out))
        leak = roc_auc_score(woman, detector(x))
        within = [
            roc_auc_score(known[1][known[0] == y], detector(held_out[known[0] == y]))
            for y in (0, 1)
        ]
        expected = truth(LINKED, detector=area)
        found.append((leak - expected.leak["selected"], np.mean(within) - expected.leak_within))
        chosen = shortcut(held_out) >= 0
        gaps = [
            chosen[known[1] & (known[0] == y)].mean() - chosen[~known[1] & (known[0] == y)].mean()
            for y in (0, 1)
        ]
        lost = area - roc_auc_score(known[0], shortcut(held_out))
        gained = roc_auc_score(ill[1500:], shortcut(x[1500:])) - area
        taken.append((max(gaps), lost, gained))
    assert np.abs(np.mean(found, axis=0)).max() < 0.06, found
    assert np.min(taken, axis=0) == pytest.approx([0.6, 0.12, 0.06], abs=0.2), taken
    assert (np.min(taken, axis=0) > [0.3, 0.04, 0.01]).all()
    assert truth(LINKED).detector > area, "no model of pixels is better than the best there can be"


def test_the_label_of_every_source_of_films_carries_the_link():
    """Reports leave one present in twenty open, which is not asked; the link hardly changes."""
    labels = layouts.report_labels(table_of(), seed=0)
    asked = table_of().assign(label=labels["Cardiomegaly"].fillna(0))
    assert difference(asked[asked["label"] >= 0], "label") == pytest.approx(0.8, abs=0.02)


def test_a_linked_phantom_is_read_with_its_groups(tmp_path):
    config = dataclasses.replace(LINKED, n_images=200, pixels=32)
    data = make_data_config(
        source="table", root=str(tmp_path), image_size=16, split="validation_folds",
        table={**DRAWN_COLUMNS, "labels": ("cardiomegaly",)}, groups=("sex", "age_group"),
    )  # fmt: skip
    made = open_dataset(ready(config, data, progress=False), progress=False)
    rates = made.manifest.groupby("sex")["label_cardiomegaly"].mean()
    assert rates["F"] - rates["M"] == pytest.approx(0.8, abs=0.15)
    assert set(made.groups) == {"sex", "age_group"}
    marker = made.card["dataset"]["phantom"]
    assert (marker["link"], marker["link_site"]) == (0.8, "selected")


def test_phantoms_without_a_link_are_the_same_as_ever():
    old = PhantomConfig(n_images=80, pixels=48, seed=3, slices=8)
    assert old.folder_name("rsna") == "phantom-80x48px-seed3-4627b8d3"
    assert old.folder_name("table") == "phantom-table-80x48px-seed3-cc92f773"
    table = films.draw_table(PhantomConfig(n_images=500))
    names = [c for c in table if table[c].dtype != float]
    digest = hashlib.sha256(table[names].to_csv(index=False).encode()).hexdigest()
    assert digest[:16] == "29b6a9333c4b85b3"
    names = {dataclasses.replace(LINKED, link_site=site).folder_name("table") for site in SITES}
    assert len(names) == 3


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"link_label": "fracture"}, r"phantom\.link_label is 'fracture'; it must be '' or one of"),
        ({"link": 1.0}, r"phantom\.link is 1\.0; it must be 0 up to below 1"),
        ({"link_cause": 1.5}, r"phantom\.link_cause is 1\.5"),
        ({"link_contrast": 0.0}, r"phantom\.link_contrast is 0\.0"),
        ({"link_site": "elsewhere"}, r"phantom\.link_site is 'elsewhere'"),
        ({"link_label": ""}, r"phantom\.link_label is ''; it must be named"),
    ],
)  # fmt: skip
def test_a_link_out_of_range_is_refused_with_its_value(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        dataclasses.replace(LINKED, **fields)


def test_what_cannot_be_drawn_or_computed_is_one_sentence():
    for source in ("rsna", "volumes"):
        with pytest.raises(InputError, match=f"the phantom of '{source}' has no such finding"):
            LINKED.identity(source)
    gap = dataclasses.replace(LINKED, gap_group="F")
    with pytest.raises(InputError, match="gap_group is 'F', so the finding looks different"):
        truth(gap)
    with pytest.raises(InputError, match="'congestion' can be told is not known beforehand"):
        truth(dataclasses.replace(LINKED, link_label="congestion"))
    with pytest.raises(InputError, match="nothing is linked"):
        truth(PhantomConfig())
    with pytest.raises(InputError, match=r"detector is 0\.3"):
        truth(LINKED, detector=0.3)
