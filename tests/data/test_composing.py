"""Who of the training split stays: by a public probability, a part, a list, or by counting."""

import numpy as np
import pandas as pd
import pytest

from jaxfair.data.composing import ComposeConfig, composed
from jaxfair.data.config import make_data_config
from jaxfair.data.hashing import hash_fraction
from jaxfair.errors import InputError

VALUES = {"sex": ("F", "M"), "view": ("AP", "PA", "lateral")}
N = 6000


def people(n=N, seed=0):
    """Patients of two images each, with a sex (sometimes unknown) and a view of each image."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["F", "M", "unknown"], n // 2, p=[0.3, 0.6, 0.1])
    table = pd.DataFrame({
        "image_id": [f"i{i}" for i in range(n)],
        "patient_id": [f"p{i // 2}" for i in range(n)],
        "sex": np.repeat(sex, 2),
        "view": rng.choice(["AP", "PA", "unknown"], n),
    })  # fmt: skip
    split = rng.choice(["train", "validation", "test", ""], n // 2, p=[0.7, 0.1, 0.15, 0.05])
    return table, np.repeat(split, 2).astype(object)


TABLE, SPLIT = people()
TRAINS = SPLIT == "train"


def kept(table=TABLE, split=SPLIT, **fields):
    return composed(table, split, ComposeConfig(**fields), VALUES) == "train"


def test_each_group_keeps_its_public_share_and_other_splits_are_left_alone():
    fields = {"keep_by": ("sex",), "keep": (0.2, 0.75)}
    stays = kept(**fields)
    for sex, share in (("F", 0.2), ("M", 0.75), ("unknown", 1.0)):
        found = stays[TRAINS & (TABLE["sex"] == sex)].mean()
        assert found == pytest.approx(share, abs=0.04 if share < 1 else 0)
    after = composed(TABLE, SPLIT, ComposeConfig(**fields), VALUES)
    assert (after[~TRAINS] == SPLIT[~TRAINS]).all() and set(after[TRAINS]) == {"train", ""}


def test_who_stays_is_the_hash_of_the_id_against_the_share_of_the_own_group():
    fields = {"keep_by": ("view", "sex"), "keep": (0.1, 0.9, 0.5, 0.0, 1.0, 1.0)}
    stays = kept(**fields)
    share = dict(zip([(v, s) for v in VALUES["view"] for s in VALUES["sex"]], fields["keep"]))
    for place in np.flatnonzero(TRAINS)[:400]:
        row = TABLE.iloc[place]
        wanted = share.get((row["view"], row["sex"]), 1.0)
        chance = hash_fraction("jaxfair-composition-1", row["patient_id"])
        assert stays[place] == (chance < wanted)


def test_compositions_are_nested_and_parts_are_chosen_by_another_hash():
    small, large = (kept(keep_by=("sex",), keep=(q, q)) for q in (0.3, 0.6))
    assert (small & large == small).all() and small.sum() < large.sum()
    few, more = kept(keep_portion=0.3), kept(keep_portion=0.6)
    assert (few & more == few).all() and few.sum() == pytest.approx(0.3 * TRAINS.sum(), rel=0.1)
    known = TABLE["sex"].to_numpy() != "unknown"
    both = kept(keep_by=("sex",), keep=(0.5, 0.5), keep_portion=0.5)
    assert both[TRAINS & known].mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    "fields",
    [{"keep_by": ("sex", "view"), "keep": (0.3,) * 6}, {"keep_portion": 0.4},
     {"keep_where": ("view=PA",)}],
)  # fmt: skip
def test_nobody_decides_over_anybody_elses_place(fields):
    whole = kept(**fields)
    for gone in (0, 101, 2500):
        others = (TABLE["patient_id"] != f"p{gone}").to_numpy()
        fewer = kept(TABLE[others].reset_index(drop=True), SPLIT[others], **fields)
        np.testing.assert_array_equal(fewer, whole[others])


def test_balancing_by_counts_gives_all_groups_as_many_patients_as_the_smallest():
    stays = kept(keep_by=("sex",), keep_balanced=True)
    count = lambda rows: TABLE[rows].groupby("sex")["patient_id"].nunique()
    before, after = count(TRAINS), count(stays)
    assert after["F"] == after["M"] == before["F"] < before["M"]
    assert after["unknown"] == before["unknown"]
    how = ComposeConfig(keep_by=("sex",), keep_balanced=True)
    assert how.selection == "coupled" and ComposeConfig(keep_portion=0.5).selection == "independent"


def test_images_stay_by_what_they_are_and_an_unknown_value_is_never_asked_for():
    stays = kept(keep_where=("view=PA", "view = lateral", "sex=F"))
    wanted = TRAINS & (TABLE["view"] == "PA") & (TABLE["sex"] == "F")
    np.testing.assert_array_equal(stays, wanted)


def test_a_list_names_patients_or_images_and_its_digest_decides(tmp_path):
    listed = tmp_path / "core.txt"
    patients = TABLE["patient_id"][TRAINS].unique()[:3]
    image = TABLE["image_id"][TRAINS].iloc[-1]
    listed.write_text("\n".join([*patients, image, "", "nobody "]))
    stays = kept(keep_ids=str(listed))
    wanted = TABLE["patient_id"].isin(patients) | (TABLE["image_id"] == image)
    np.testing.assert_array_equal(stays, wanted)
    before = ComposeConfig(keep_ids=str(listed)).rule
    assert str(tmp_path) not in str(before)
    listed.write_text("\n".join(patients))
    assert ComposeConfig(keep_ids=str(listed)).rule != before


def test_without_a_rule_everybody_stays_and_digests_of_older_data_hold():
    assert ComposeConfig().rule == {} and kept().sum() == TRAINS.sum()
    config = make_data_config(source="rsna", keep_by=("sex",), keep=(1.0, 0.5))
    assert config.rule["keep"] == [1.0, 0.5] and config.selection == "independent"
    assert not any(name.startswith("keep") for name in make_data_config(source="rsna").rule)
    balanced = make_data_config(source="rsna", keep_by=("sex",), keep_balanced=True)
    assert balanced.selection == "coupled"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"keep_by": ("sex",), "keep": (0.5,)}, "1 numbers for the 2 groups by sex"),
        ({"keep_by": ("sxe",), "keep": (0.5, 0.5)}, "asks for 'sxe'"),
        ({"keep": (0.5, 0.5)}, "data.keep_by is ()"),
        ({"keep_by": ("sex",)}, "data.keep_by is ('sex',)"),
        ({"keep_by": ("sex",), "keep": (0.0, 0.0)}, "not all of them 0"),
        ({"keep_by": ("sex",), "keep": (1.1, 0.5)}, "probabilities in [0, 1]"),
        ({"keep_by": ("sex",), "keep": (1, 1), "keep_balanced": True}, "data.keep_balanced"),
        ({"keep_portion": 0.0}, "data.keep_portion is 0.0"),
        ({"keep_where": ("sex",)}, "texts such as 'view=PA'"),
        ({"keep_where": ("sex=W",)}, "data.keep_where has sex=W; the values are F, M"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(InputError) as caught:
        make_data_config(source="rsna", **fields)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a list of ids, one a line"):
        kept(keep_ids=str(tmp_path / "none.txt"))
