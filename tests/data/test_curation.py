"""Disparities that are made larger on purpose, each image by itself or by counting."""

import json

import numpy as np
import pandas as pd
import pytest

from jaxfair.data import dataset
from jaxfair.data.config import make_data_config
from jaxfair.data.curation import CurationConfig, curated, keep_for_gap, positive_rates
from jaxfair.errors import InputError

TOWARD = {"sex": ("F",), "race": ("black", "asian"), "age_group": ("61-75",)}
COUNTED = {"curate": "counted", "curate_label": "mass", "curate_toward": TOWARD, "curate_gap": 0.16}
PUBLIC = {
    "curate": "public",
    "curate_label": "mass",
    "curate_toward": {"sex": ("F",)},
    "curate_keep": {"sex": 0.5},
}


def people(n=9000, seed=0):
    """Prevalences differ a little, attributes run together, some cells are empty."""
    rng = np.random.default_rng(seed)
    old, woman = rng.random(n) < 0.5, rng.random(n) < 0.35
    race = rng.choice(["white", "black", "asian", "unknown"], n, p=[0.6, 0.2, 0.15, 0.05])
    race = np.where(old & (rng.random(n) < 0.3), "white", race)
    label = (rng.random(n) < 0.25 + 0.05 * old - 0.03 * woman).astype(float)
    table = pd.DataFrame({
        "image_id": [f"i{i}" for i in range(n)],
        "label_mass": np.where(rng.random(n) < 0.05, np.nan, label),
        "sex": np.where(rng.random(n) < 0.03, "unknown", np.where(woman, "F", "M")),
        "race": race,
        "age_group": np.where(old, "61-75", "31-45"),
    })  # fmt: skip
    return table, rng.choice(["train", "validation", "test", ""], n, p=[0.7, 0.18, 0.1, 0.02])


def gaps(table, split, how, *names):
    """Slowly: the rate of each side, counted by hand over the named splits."""
    found = {}
    for attribute, values in how.curate_toward.items():
        counts = {True: [], False: []}
        for part, label, group in zip(split, table["label_mass"], table[attribute], strict=True):
            if part in names and label == label and group != "unknown":
                counts[group in values].append(label)
        found[attribute] = np.mean(counts[True]) - np.mean(counts[False])
    return found


def test_counting_reaches_the_gap_of_every_attribute_and_no_more():
    (table, split), how = people(), CurationConfig(**COUNTED)
    before = gaps(table, split, how, "train", "validation")
    assert max(before.values()) < 0.08
    after = gaps(table, curated(table, split, how), how, "train", "validation")
    assert min(after.values()) >= 0.16
    assert after == pytest.approx(dict.fromkeys(after, 0.16), abs=0.002)


@pytest.mark.parametrize("seed", range(6))
def test_any_table_reaches_any_gap_and_ends_just_beyond_it(seed):
    """A search that stops where one attribute is there already ends in a refusal."""
    rng = np.random.default_rng(seed)
    table, split = people(int(rng.integers(400, 5000)), seed)
    for gap in (0.1, 0.3):
        how = CurationConfig(**COUNTED | {"curate_gap": gap})
        kept = curated(table, split, how)
        after = gaps(table, kept, how, "train", "validation")
        assert gap <= min(after.values()) + 1e-12
        assert max(after.values()) < gap + 12 / np.isin(kept, ["train", "validation"]).sum() + 0.01
        assert (kept != "").sum() > 0.6 * (split != "").sum()


def test_the_test_set_is_left_as_it_is_unless_it_is_named():
    table, split = people()
    for fields in (COUNTED, PUBLIC):
        chosen = curated(table, split, CurationConfig(**fields))
        assert ((chosen == "test") == (split == "test")).all()
        everywhere = ("train", "validation", "test")
        whole = curated(table, split, CurationConfig(**fields, curate_splits=everywhere))
        assert (whole[split == "test"] == "").any()
        for kept in (chosen, whole):
            assert set(kept[kept != split]) == {""} and (kept[split == ""] == "").all()
    how = CurationConfig(**COUNTED, curate_splits=everywhere)
    reached = gaps(table, curated(table, split, how), how, *everywhere)
    assert reached == pytest.approx(dict.fromkeys(reached, 0.16), abs=0.002)


def test_no_more_images_go_than_a_plain_search_drops():
    """The rule in its simplest form: drop one image after the other, of any that helps."""
    table, split = people(1500)
    how = CurationConfig(**COUNTED | {"curate_toward": {"sex": ("F",)}})
    kept = curated(table, split, how)
    asked = (
        table["label_mass"].notna()
        & (table["sex"] != "unknown")
        & np.isin(split, ["train", "validation"])
    )
    woman, ill = (
        (table["sex"] == "F")[asked].to_numpy(),
        (table["label_mass"] == 1)[asked].to_numpy(),
    )
    fewest = np.inf
    for negatives in range(int((woman & ~ill).sum())):
        high = (woman & ill).sum() / (woman.sum() - negatives)
        for positives in range(int((~woman & ill).sum())):
            n = (~woman & ill).sum() - positives
            if high - n / ((~woman & ~ill).sum() + n) >= 0.16:
                fewest = min(fewest, negatives + positives)
                break
    assert (kept != split).sum() <= fewest + 2


def test_images_whose_label_was_not_asked_stay():
    table, split = people()
    for fields in (COUNTED, PUBLIC):
        kept = curated(table, split, CurationConfig(**fields))
        unasked = table["label_mass"].isna().to_numpy()
        assert (kept[unasked] == split[unasked]).all()


def test_a_public_probability_makes_odds_that_are_known_beforehand():
    table, split = people(60_000)
    how = CurationConfig(**PUBLIC)
    before = {
        line["attribute"]: line for line in positive_rates(table.assign(split=split), how)[:1]
    }
    after = {
        line["attribute"]: line
        for line in positive_rates(table.assign(split=curated(table, split, how)), how)[:1]
    }
    odds = lambda rate: rate / (1 - rate)
    for side, factor in (("toward", 2.0), ("rest", 0.5)):
        ratio = odds(after["sex"][side]) / odds(before["sex"][side])
        assert ratio == pytest.approx(factor, rel=0.06)


def test_public_probabilities_multiply_and_unknown_groups_move_nothing():
    table, split = people(60_000)
    toward, keep = {"sex": ("F",), "race": ("black", "asian")}, {"sex": 0.5, "race": 0.7}
    kept = curated(table, split, CurationConfig(**PUBLIC | {
        "curate_toward": toward, "curate_keep": keep
    }))  # fmt: skip
    inside = np.isin(split, ["train", "validation"])
    for label, sex, race, share in (
        (0, "F", "black", 0.35), (0, "F", "white", 0.5), (0, "M", "asian", 0.7),
        (0, "M", "white", 1),
        (1, "M", "white", 0.35), (1, "F", "black", 1), (1, "unknown", "white", 0.7),
        (1, "unknown", "unknown", 1), (0, "F", "unknown", 0.5),
    ):  # fmt: skip
        cell = inside & (table["label_mass"] == label) & (table["sex"] == sex)
        cell &= table["race"] == race
        assert (kept[cell] != "").mean() == pytest.approx(share, abs=0.07), (label, sex, race)


def test_each_attribute_has_its_own_probability_in_whatever_order_they_are_named():
    """A config that was saved may name them in another order."""
    table, split = people(2000)
    toward, keep = {"sex": ("F",), "race": ("black",)}, {"sex": 0.3, "race": 0.9}
    backwards = lambda fields: dict(reversed(fields.items()))
    kept = [
        curated(table, split, CurationConfig(**PUBLIC | {"curate_toward": t, "curate_keep": k}))
        for t in (toward, backwards(toward))
        for k in (keep, backwards(keep))
    ]
    assert all(np.array_equal(kept[0], other) for other in kept[1:])
    women = (split == "train") & (table["sex"] == "F") & (table["race"] == "white")
    women &= table["label_mass"] == 0
    assert (kept[0][women] == "train").mean() == pytest.approx(0.3, abs=0.07)


def test_the_probability_for_a_gap_gives_that_gap():
    for toward, rest, gap in ((0.2, 0.2, 0.16), (0.3, 0.5, 0.1), (0.05, 0.04, 0.1)):
        keep = keep_for_gap(toward, rest, gap)
        high = toward / (toward + keep * (1 - toward))
        low = keep * rest / (keep * rest + 1 - rest)
        assert high - low == pytest.approx(gap) and 0 < keep < 1
    assert keep_for_gap(0.5, 0.2, 0.16) == 1.0
    with pytest.raises(InputError, match=r"rest is 0; it must be above 0"):
        keep_for_gap(0.5, 0, 0.16)


def test_a_public_rule_asks_nobody_else_and_a_counting_one_does():
    table, split = people(1200)
    moved = dict.fromkeys(("public", "counted"), 0)
    for fields in (PUBLIC, COUNTED | {"curate_toward": {"sex": ("F",)}}):
        how = CurationConfig(**fields)
        kept = curated(table, split, how)
        for leaving in (*np.flatnonzero(split == "train")[:12], slice(0, 500), slice(0, None, 2)):
            others = np.ones(len(table), bool)
            others[leaving] = False
            fewer = curated(table[others], split[others], how)
            moved[how.curate] += (fewer != kept[others]).any()
    assert moved["public"] == 0 < moved["counted"]


def test_folds_choose_from_one_curated_table():
    """Train and validation are one pool, so that every fold of a study sees the same images."""
    table, split = people()
    how = CurationConfig(**COUNTED)
    other = np.where(
        split == "train", "validation", np.where(split == "validation", "train", split)
    )
    assert ((curated(table, split, how) == "") == (curated(table, other, how) == "")).all()


def test_another_salt_drops_other_images_and_as_many():
    table, split = people()
    one, two = (
        curated(table, split, CurationConfig(**COUNTED, curate_salt=salt)) for salt in ("a", "b")
    )
    assert (one != two).any() and (one == "").sum() == (two == "").sum()


def test_a_gap_that_no_dropping_reaches_is_one_sentence():
    table, split = people(400)
    table["label_mass"] = 0.0
    with pytest.raises(InputError, match=r"curate_gap 0\.16 cannot be reached in sex, race, age"):
        curated(table, split, CurationConfig(**COUNTED))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"curate": "coupled"}, r"data\.curate is 'coupled'; it must be one of '', 'public'"),
        ({"curate_label": ""}, r"data\.curate_label is ''"),
        ({"curate_label": "opacity"}, r"data\.curate_label has 'opacity'; there are anomaly"),
        ({"curate_toward": {}}, r"data\.curate_toward is \{\}"),
        ({"curate_toward": {"sex": ("W",)}}, r"data\.curate_toward has 'W'; there are F, M"),
        ({"curate_toward": {"height": ("a",)}}, r"data\.curate_toward has 'height'"),
        ({"curate_keep": {}}, r"data\.curate_keep is \{\}; it must be one probability"),
        ({"curate_toward": {"sex": 5}}, r"data\.curate_toward is .* some of its values"),
        ({"curate_toward": "sex"}, r"data\.curate_toward is 'sex'"),
        ({"curate_keep": {"sex": "half"}}, r"data\.curate_keep is .* attribute -> probability"),
        ({"curate_keep": {"sex": 0.0}}, r"data\.curate_keep .* above 0 and at most 1"),
        ({"curate_gap": 1.0}, r"data\.curate_gap is 1\.0"),
        ({"curate_splits": ("tests",)}, r"data\.curate_splits is \('tests',\)"),
        ({"split": "thesis"}, r"data\.split 'thesis' chooses who trains already"),
    ],
)  # fmt: skip
def test_a_curation_that_cannot_be_is_refused_before_a_file_is_read(fields, sentence):
    fields = PUBLIC | {"curate_label": "anomaly"} | fields
    if fields["curate_toward"] == {"height": ("a",)}:
        fields["curate_keep"] = {"height": 0.5}
    with pytest.raises(InputError, match=sentence):
        make_data_config(source="rsna", **fields)


@pytest.mark.parametrize(("curate", "word"), [("public", "independent"), ("counted", "coupled")])
def test_a_set_that_was_counted_says_coupled_and_the_card_has_the_rates_before(
    small_phantom, tmp_path, curate, word
):
    fields = PUBLIC | {"curate": curate, "curate_label": "anomaly", "curate_gap": 0.3}
    config = make_data_config(
        root=str(small_phantom), prepared=str(tmp_path / "set"), image_size=16, split="random",
        anomaly="any", **fields,
    )  # fmt: skip
    made = dataset.open_dataset(config, progress=False)
    assert made.selection == word and made.card["split_rule"]["curate"] == curate
    rates = made.card["curation"]
    lines = {when: rates[when][0] for when in ("before", "after")}
    assert lines["after"]["images"] < lines["before"]["images"]
    assert lines["after"]["gap"] > lines["before"]["gap"]
    assert rates["before"][2] == rates["after"][2], "the test set is as it was"
    json.dumps(made.card, allow_nan=False)
    plain = make_data_config(
        root=str(small_phantom), prepared=str(tmp_path / "set"), image_size=16, split="random",
        anomaly="any",
    )  # fmt: skip
    whole = dataset.open_dataset(plain, progress=False)
    assert whole.selection == "independent" and "curation" not in whole.card
    assert whole.digest != made.digest and len(whole) == len(made)


def test_a_config_without_a_curation_names_none_of_its_fields():
    assert not [name for name in make_data_config().rule if name.startswith("curate")]
    assert CurationConfig().selection == "independent"
