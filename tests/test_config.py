"""The door: every wrong config ends in one sentence that names what was meant."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from jaxfair.cli.fields import checked
from jaxfair.config import (
    load_config,
    parse_command,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.data.transforms import AugmentConfig
from jaxfair.errors import InputError
from jaxfair.experiment import section
from jaxfair.methods.catalog import METHODS
from jaxfair.privacy.plan import PrivacyConfig
from tests.small import CONFIG


def parsed(*overrides):
    return parse_command(["train", "--config", CONFIG, *overrides])[0]


def refusal(*overrides):
    with pytest.raises(InputError) as caught:
        plan_from_settings(settings_from_config(parsed(*overrides)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_overrides_follow_the_config_on_the_line():
    config = parsed("--config.dp.epsilon=4", "--config.dp.enabled=False")
    assert config.dp.epsilon == 4.0
    assert settings_from_config(config).dp.enabled is False


def test_optional_fields_can_be_set_from_the_line():
    config = parsed("--config.dp.insecure_seed=3", "--config.data.root=here")
    settings = settings_from_config(config)
    assert (settings.dp.insecure_seed, settings.data.root) == (3, "here")


def test_a_missing_config_file_names_the_nearest_one():
    path = CONFIG.partition(":")[0].replace("rsna_fae", "rsna_fea")
    with pytest.raises(InputError, match=r"does not exist.*Did you mean.*rsna_fae\.py"):
        load_config(path)


def test_an_unknown_variant_lists_the_known_ones():
    with pytest.raises(InputError, match=r"'fantom' does not exist.*phantom"):
        load_config(CONFIG.replace(":phantom", ":fantom"))


def test_a_missing_config_option_says_so():
    with pytest.raises(InputError, match="Give --config FILE"):
        parse_command(["train"])


def test_an_unknown_key_names_the_nearest_one():
    assert "Did you mean config.dp.epsilon?" in refusal("--config.dp.epsilonn=4")
    assert "Did you mean config.train.steps?" in refusal("--config.train.step=4")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("--config.dp.epsilon=0", "dp.epsilon is 0.0; it must be in"),
        ("--config.dp.epsilon=-1", "dp.epsilon is -1.0"),
        ("--config.dp.epsilon=nan", "dp.epsilon is nan"),
        ("--config.dp.delta=1.5", "dp.delta is 1.5"),
        ("--config.dp.delta=0.01", "above 0.1 / public_size"),
        ("--config.dp.l2_clip_norm=0", "dp.l2_clip_norm is 0.0"),
        ("--config.dp.unit=person", "dp.unit is 'person'"),
        ("--config.dp.clipping=ghots", "dp.clipping is 'ghots'"),
        ("--config.train.steps=0", "train.steps is 0"),
        ("--config.train.expected_batch_size=700", "between 1 and the public size"),
        ("--config.optim.decay_steps=7", "decay_steps is 7, so the last of train.steps = "),
        ("--config.optim.name=adm", "Did you mean 'adam'?"),
        ("--config.method.name=fea", "Did you mean 'fae'?"),
        ("--config.method.loss=ssim", "loss"),
        ("--config.data.split=patients", "Did you mean 'patient'?"),
    ],
)
def test_values_out_of_range_are_refused_before_data_is_read(override, sentence):
    assert sentence in refusal(override)


def test_a_field_of_a_section_that_is_empty_is_refused_with_how_to_fill_it():
    line = ["train", "--config", "chexpert_adversarial:phantom"]
    with pytest.raises(InputError) as caught:
        parse_command([*line, "--config.optim.parts.adversary.every=2"])
    assert "--config.optim.parts=\"{'adversary': {'every': ...}}\"" in str(caught.value)
    config, _ = parse_command([*line, "--config.optim.parts={'adversary': {'every': 2}}"])
    assert config.optim.parts.to_dict() == {"adversary": {"every": 2}}


@pytest.mark.parametrize("name", ["chexpert_fairread", "chexpert_adversarial", "cxr14_resnet"])
def test_findings_that_may_be_true_together_are_no_classes(name):
    config = load_config(f"{name}:phantom")
    config.method.target = "multi-class"
    with pytest.raises(InputError, match=r"of the source '\w+' may be true together: use"):
        settings_from_config(config)
    table = load_config("table_fairread:phantom")
    table.method.target = "multi-class"
    with pytest.raises(InputError, match="at least 2 different names for a multi-class"):
        settings_from_config(table)


WHOLE = [
    (name, field.name)
    for name, entry in METHODS.items()
    for field in dataclasses.fields(entry.config)
    if field.type in (int, "int")
]


@pytest.mark.parametrize(("method", "field"), WHOLE)
def test_a_whole_number_of_a_method_is_asked_for_in_one_sentence(method, field):
    cls = METHODS[method].config
    needed = {f.name: ("a", "b") for f in dataclasses.fields(cls) if f.name == "labels"}
    needed |= {f.name: {"sex": 2} for f in dataclasses.fields(cls) if f.name == "attributes"}
    for wrong in (1.5, True, "3"):
        with pytest.raises(InputError) as caught:
            checked(cls, needed | {field: wrong}, "method")
        said = f"config.method.{field} is {wrong!r}; it must be a whole number: "
        assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def unlocked():
    """The config, open to what a file can hold and a line cannot."""
    return ConfigDict(parsed().to_dict())


@pytest.mark.parametrize("name", ["data", "method", "optim", "dp", "train"])
@pytest.mark.parametrize("wrong", ["left out", 3, None, "a word", (1, 2)])
def test_a_section_that_is_missing_or_no_section_ends_in_one_sentence(name, wrong):
    config = unlocked()
    del config[name]
    if wrong != "left out":
        config[name] = wrong
    with pytest.raises(InputError, match=f"no section '{name}'|config.{name} is ") as caught:
        settings_from_config(config)
    assert "\n" not in str(caught.value) and "ConfigDict" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("name", None, r"config\.name is missing; it must be str: of the experiment"),
        ("seed", None, r"config\.seed is missing; it must be int"),
        ("name", 3, r"config\.name is 3; it must be str"),
        ("seed", "one", r"config\.seed is 'one'; it must be int"),
        ("seed", True, r"config\.seed is True; it must be int"),
        ("extractor", 3, r"config\.extractor is 3; it must be a section"),
        ("augment", 3, r"config\.augment is 3; it must be a section"),
    ],
)
def test_a_name_a_seed_and_optional_sections_are_checked(name, wrong, sentence):
    config = ConfigDict({n: v for n, v in unlocked().items() if n != name})
    if wrong is not None:
        config[name] = wrong
    with pytest.raises(InputError, match=sentence):
        settings_from_config(config)


def test_sections_with_defaults_alone_may_be_left_out():
    config = ConfigDict({n: v for n, v in unlocked().items() if n not in ("extractor", "augment")})
    assert settings_from_config(config).augment == AugmentConfig()


@pytest.mark.parametrize("wrong", [None, ["fae"], 3])
def test_a_method_without_a_known_name_is_refused(wrong):
    config = unlocked()
    del config.method["name"]
    if wrong is not None:
        config.method.name = wrong
    with pytest.raises(InputError, match=r"method\.name is .*; known methods are fae"):
        settings_from_config(config)


def test_a_field_without_default_says_what_it_is():
    config = unlocked()
    del config.train["steps"]
    with pytest.raises(InputError, match=r"config\.train\.steps is missing: updates of the whole"):
        settings_from_config(config)


@pytest.mark.parametrize("override", ["--config.dp.epsilon=much", "--config.train.steps=1.5"])
def test_values_of_the_wrong_type_are_refused(override):
    with pytest.raises(InputError):
        parsed(override)


def test_an_unknown_option_is_refused():
    with pytest.raises(InputError, match="wrkdir"):
        parse_command(["train", "--config", CONFIG, "--wrkdir=x"])


def test_a_stray_word_is_refused():
    with pytest.raises(InputError, match="takes no argument 'phantom'"):
        parse_command(["train", "--config", CONFIG, "phantom"])


def test_what_is_to_be_drawn_is_no_part_of_the_data_room_and_checked_at_the_door():
    settings = settings_from_config(parsed("--config.data.phantom.n_images=30"))
    assert settings.phantom.n_images == 30 and not hasattr(settings.data, "phantom")
    config = parsed()
    with config.unlocked():
        config.data.phantom.n_image = 30
        with pytest.raises(InputError, match=r"data.phantom.n_image is not a field.*'n_images'"):
            settings_from_config(config)
        del config.data.phantom
    assert settings_from_config(config).phantom is None


def test_a_run_needs_a_declared_population():
    config = parsed()
    config.data.public_size = None
    with pytest.raises(InputError, match="declare the size"):
        plan_from_settings(settings_from_config(config))


def test_a_section_has_every_default_and_leaves_open_what_is_none():
    made = section(PrivacyConfig, epsilon=2.0)
    assert (made.epsilon, made.l2_clip_norm, made.delta) == (2.0, PrivacyConfig.l2_clip_norm, None)
    made.delta, made.unit, made.insecure_seed = 1e-6, "image", 3
    assert PrivacyConfig(**made).delta == 1e-6
    with pytest.raises(TypeError):
        made.delta = "small"
