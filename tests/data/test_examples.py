"""What an example carries beside image and labels: groups and weights, by public rules."""

import jax
import numpy as np
import pandas as pd
import pytest

from jaxfair.data.config import make_data_config
from jaxfair.data.dataset import open_dataset
from jaxfair.data.examples import agreed, example_spec, group_codes
from jaxfair.errors import InputError
from jaxfair.schema import AGE_GROUPS

ABOUT = {
    "file": "table.csv", "stack": "stack.npy", "patient": "person", "sex": "sex", "age": "age",
    "view": "view", "labels": ("ill",), "attributes": ("site",),
    "values": {"site": ("north", "south", "west")}, "weight": "weight",
}  # fmt: skip
PEOPLE = pd.DataFrame(
    {
        "person": ["a", "a", "b", "b", "c", "d"],
        "sex": ["F", "F", "M", "F", "", "M"],
        "age": ["20", "20", "30", "31", "200", "70"],
        "view": ["AP", "PA", "AP", "AP", "AP", "PA"],
        "site": ["south", "south", "north", "south", "", "north"],
        "ill": ["0", "1", "0", "1", "0", "1"],
        "split": ["train"] * 5 + ["test"],
        "weight": ["0.5", "2", "1", "1", "0", "3"],
    }
)
GROUPS = ("site", "sex", "age_group", "view")


@pytest.fixture
def opened(tmp_path):
    """opened(table, about, **fields): the dataset of a table of six images."""

    def make(table=PEOPLE, about=None, **fields):
        root = tmp_path / f"root{len(table)}"
        root.mkdir()
        table.to_csv(root / "table.csv", index=False)
        noise = np.random.default_rng(0).integers(0, 256, (len(table), 16, 16))
        np.save(root / "stack.npy", noise.astype(np.uint8))
        config = make_data_config(
            source="table", root=str(root), image_size=16, split="source",
            table=ABOUT | {"split": "split"} | (about or {}), **fields,
        )  # fmt: skip
        made = open_dataset(config, progress=False)
        assert made.spec == config.spec
        return made

    return make


def test_groups_and_weight_are_delivered_in_the_order_of_the_config(opened):
    made = opened(groups=GROUPS)
    assert made.spec["group"] == jax.ShapeDtypeStruct((4,), np.int32)
    assert made.spec["weight"] == jax.ShapeDtypeStruct((), np.float32)
    read = {name: made.fields[name](np.array([0, 3, 4])) for name in ("group", "weight")}
    old = AGE_GROUPS.index("31-45")
    assert read["group"].tolist() == [[1, 0, 1, 0], [1, 0, old, 0], [-1, -1, -1, 0]]
    assert read["weight"].tolist() == [0.5, 1.0, 0.0]
    for name, read in made.fields.items():
        values = read(np.arange(2))
        assert values.dtype == made.spec[name].dtype
        assert values.shape == (2, *made.spec[name].shape)


def test_an_example_without_groups_is_what_it_was(opened):
    made = opened(about={"weight": None})
    assert list(made.spec) == list(made.fields) == ["image", "label", "label_mask"]
    assert made.spec == example_spec((16, 16, 1), labels=1)


def test_codes_do_not_depend_on_who_is_in_the_table(opened):
    """Leaving out everybody of one value renumbers nobody (protocol P4)."""
    values = {"site": ("north", "south", "west"), "sex": ("F", "M")}
    few = PEOPLE[PEOPLE["site"] == "south"]
    whole = group_codes(PEOPLE.replace("", "unknown"), values)
    np.testing.assert_array_equal(group_codes(few, values), whole[few.index])


def test_a_unit_has_a_group_only_where_all_its_training_images_agree(opened):
    made = opened(groups=GROUPS)
    ids, _ = made.units("patient")
    assert ids == ["a", "b", "c"]
    assert made.unit_groups("patient", "sex").tolist() == [0, -1, -1]
    assert made.unit_groups("patient", "site").tolist() == [1, -1, -1]
    assert made.unit_groups("patient", "site", split="test").tolist() == [0]
    assert made.unit_groups("image", "view").tolist() == [0, 1, 0, 0, 0]


def test_one_patient_more_or_less_changes_nobody_elses_group(opened):
    all_of_them = opened(groups=GROUPS).unit_groups("patient", "age_group")
    fewer = opened(PEOPLE[PEOPLE["person"] != "b"], groups=GROUPS)
    assert fewer.unit_groups("patient", "age_group").tolist() == all_of_them[[0, 2]].tolist()


def test_a_view_is_no_group_of_a_patient_and_an_unnamed_attribute_is_none(opened):
    made = opened(groups=("sex", "view"))
    with pytest.raises(InputError, match="A view belongs to an image, and the unit is the patient"):
        made.unit_groups("patient", "view")
    with pytest.raises(InputError, match=r"no groups of 'site'; name it in data.groups, which has"):
        made.unit_groups("patient", "site")


def test_agreement_needs_every_image():
    assert agreed(np.array([2])) == 2
    assert agreed(np.array([-1, -1])) == agreed(np.array([2, -1])) == agreed(np.array([0, 2])) == -1


@pytest.mark.parametrize(
    "about, fields, sentence",
    [
        ({"values": {}}, {"groups": ("site",)}, "'site', whose values are not declared"),
        ({"values": {"town": ("a",)}}, {}, "data.table.values has 'town', which is none of"),
        ({"attributes": ("weight",), "weight": None, "values": {}}, {}, "a column of ours has"),
        ({}, {"groups": ("sexes",)}, "data.groups has 'sexes'.*Did you mean 'sex'"),
        ({}, {"groups": ("sex", "sex")}, "data.groups has 'sex' twice"),
    ],
)
def test_groups_that_have_no_public_values_are_refused_at_the_door(about, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        make_data_config(source="table", table=ABOUT | about, **fields)


def test_a_text_where_several_are_wanted_is_one_of_them_and_not_its_letters():
    made = make_data_config(source="table", table=ABOUT | {"labels": "mass"}, views="PA")
    assert made.tasks == ("mass",) and made.views == ("PA",)


def test_a_value_outside_the_public_list_is_refused_before_anything_is_trained(opened):
    with pytest.raises(InputError, match=r"site holds 'north' \(2 rows\).*values are south;"):
        opened(about={"values": {"site": ("south",)}}, groups=("site",))


@pytest.mark.parametrize("cell", ["", "much", "-1", "inf"])
def test_a_weight_that_is_no_number_of_0_or_more_is_refused(opened, cell):
    with pytest.raises(InputError, match=rf"column weight, row 3: '{cell}' is no .*; a weight is"):
        opened(PEOPLE.assign(weight=["1", cell, "1", "1", "1", "1"]))
