"""A config file is short, and what stands in it is whole."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from jaxfair.config import settings_from_config
from jaxfair.data.config import data_classes
from jaxfair.errors import InputError
from jaxfair.experiment import DP_CXR, DRAWN_FILMS, HAM10000, RESNET9, experiment, variant

TRAINING = {name: DP_CXR[name] for name in ("optim", "dp", "train")}


def made(**data):
    return experiment("mine", data={"public_size": 900, **data}, method=RESNET9, **TRAINING)


@pytest.mark.parametrize("source", ["rsna", "chexpert", "cxr14", "mimic_cxr"])
def test_every_field_of_the_data_stands_in_the_config(source):
    """And so each can be overridden from the command line; the parts are no fields there."""
    fields = {field.name for cls in data_classes(source) for field in dataclasses.fields(cls)}
    config = made(source=source)
    absent = fields - set(config.data.keys())
    assert absent == {"stored", "splits", "curation", "composition", "options", "volume", "spacing"}


def test_only_its_own_options_stand_in_the_config_of_a_source():
    assert "anomaly" in made(source="rsna").data and "uncertain" not in made(source="rsna").data
    assert "uncertain" in made(source="chexpert").data
    with pytest.raises(InputError, match=r"data.anomaly is an option of data.source 'rsna', and"):
        settings_from_config(made(source="chexpert", anomaly="any"))


def test_what_is_chosen_is_what_is_built_and_the_rest_has_its_default():
    settings = settings_from_config(made(source="chexpert", labels=("edema",), uncertain="ones"))
    assert (settings.data.tasks, settings.data.options.uncertain) == (("edema",), "ones")
    assert (settings.method.backbone, settings.method.labels) == ("resnet9", ("edema",))
    assert settings.dp.epsilon == DP_CXR["dp"]["epsilon"]
    assert settings.data.stored.image_size == 128 and settings.phantom is None


def test_a_variant_replaces_fields_and_keeps_all_others():
    config = variant(made(source="chexpert", views=("AP",)), "phantom", phantom=DRAWN_FILMS)
    settings = settings_from_config(config)
    assert config.name == "mine_phantom" and settings.phantom.n_images == 1_200
    assert settings.train.steps == 40 and settings.dp.l2_clip_norm == 1.5
    assert settings.data.views == ("AP",) and settings.data.public_size == 500


def test_a_section_within_a_section_is_replaced_as_a_whole():
    table = {"file": "t.csv", "image": "image", "labels": ("a",)}
    config = experiment("mine", data=HAM10000, method=RESNET9, **TRAINING)
    changed = variant(config, "other", other={"data": {"table": table}})
    assert changed.data.table == ConfigDict(table) and changed.name == "mine"


def test_the_whole_experiment_is_the_variant_without_a_name():
    assert variant(made(source="rsna"), "", phantom=DRAWN_FILMS) == made(source="rsna")


def test_a_variant_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="'fantom' does not exist; known are '', 'phantom'"):
        variant(made(source="rsna"), "fantom", phantom=DRAWN_FILMS)
