"""Every config and every variant of it parses, and gives a plan that keeps its promise."""

import dataclasses
import pathlib
import re

import pytest

from jaxfair import train
from jaxfair.cli.parser import parse
from jaxfair.config import (
    load_config,
    method_from_settings,
    parse_command,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.methods.reading import blocks_before
from jaxfair.privacy import accounting
from jaxfair.start import open_data

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs"
CONFIGS = [
    f"{path}{variant}"
    for path in sorted(FOLDER.glob("*.py"))
    if path.stem not in ("pretrain_drawn", "throughput")
    for variant in ("", ":phantom")
] + [
    f"{FOLDER / 'derm_adversarial.py'}:features",
    *(
        f"{FOLDER / 'rsna_detectors.py'}:{name}"
        for name in ("pca", "deepsvdd", "reverse_distillation", "ssim_autoencoder_phantom")
    ),
]


PLAIN_LITE = f"{FOLDER / 'derm_lite.py'}:plain"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: pathlib.Path(p).name)
def test_config_gives_a_plan_within_its_budget(path):
    settings = settings_from_config(load_config(path))
    assert settings.dp.enabled, "every config is private by default"
    plan = plan_from_settings(settings)
    event = plan.event(plan.steps)
    assert 0.999 * settings.dp.epsilon <= plan.epsilon <= settings.dp.epsilon
    assert accounting.epsilon([event], plan.delta) == plan.epsilon
    assert plan.delta <= min(1e-5, 0.1 / plan.public_size)


@pytest.mark.parametrize("path", [*CONFIGS, PLAIN_LITE], ids=lambda p: pathlib.Path(p).name)
def test_config_is_read_from_the_command_line(path):
    line = parse(train.COMMAND, ["train", "--config", path, "--config.seed=3"])
    assert line.config.seed == 3 and settings_from_config(line.config).seed == 3


def test_a_field_that_a_variant_empties_stays_open_for_the_command_line():
    path = f"{FOLDER / 'derm_lite.py'}:phantom"
    assert load_config(path).method.weights is None
    config = parse(train.COMMAND, ["train", "--config", path, "--config.method.weights=w.pth"])
    assert config.config.method.weights == "w.pth"


def test_a_config_that_holds_none_is_read_from_the_command_line(tmp_path):
    mine = tmp_path / "mine.py"
    shipped = FOLDER / "derm_lite.py"
    text = shipped.read_text().replace(
        "return variant", "config.method.weights = None\n    return variant"
    )
    mine.write_text(text)
    line = parse(train.COMMAND, ["train", "--config", str(mine), "--config.train.steps=7"])
    assert line.config.method.weights is None and line.config.train.steps == 7


@pytest.mark.parametrize(
    ("blocks", "variant"), [(16, ""), (0, ":plain")], ids=["private", "without privacy"]
)
def test_the_private_lite_reads_its_blocks_before_and_the_plain_one_as_it_trains(blocks, variant):
    settings = settings_from_config(load_config(f"{FOLDER / 'derm_lite.py'}{variant}"))
    found = blocks_before(settings.method.backbone, settings.method.freeze)
    assert found == blocks and settings.dp.enabled == (variant == "")
    assert (method_from_settings(settings).prepare is not None) == (blocks > 0)


def test_the_plain_lesion_network_differs_from_the_private_one_in_training_alone():
    plain, private = (
        settings_from_config(load_config(f"{FOLDER / 'derm_resnet.py'}{variant}"))
        for variant in (":plain", "")
    )
    assert not plain.dp.enabled and private.dp.enabled
    assert plain.method == private.method and plain.augment == private.augment
    assert plain.optim.decay_steps == plain.train.steps > private.train.steps


@pytest.mark.parametrize("name", ["chexpert_adversarial", "derm_adversarial"])
def test_the_plain_adversarial_networks_are_the_private_ones(name):
    plain, private = (
        settings_from_config(load_config(f"{FOLDER / name}.py{variant}"))
        for variant in (":plain", "")
    )
    assert not plain.dp.enabled and private.dp.enabled
    assert plain.method == dataclasses.replace(private.method, orthogonality="batch")
    assert plain.optim.every == 2 and plain.optim.parts == {"adversary": {"every": 1}}


@pytest.mark.parametrize("name", ["chexpert_adversarial", "derm_adversarial", "chexpert_fairread",
                                  "derm_fairread", "table_fairread"])  # fmt: skip
def test_a_loss_that_couples_examples_sees_a_whole_batch(name):
    plain = settings_from_config(load_config(f"{FOLDER / name}.py:plain"))
    assert plain.dp.microbatch == plain.train.expected_batch_size


def test_the_plain_classifier_that_an_adversarial_config_names_has_no_loss_but_its_labels():
    told = (FOLDER / "chexpert_adversarial.py").read_text().split("plain classifier", 1)[1]
    flags = told.split("LNTL", 1)[0].replace("`", " ").replace(",", " ").split()
    line = [flag for flag in flags if flag.startswith("--config.")]
    path = str(FOLDER / "chexpert_adversarial.py")
    config, _ = parse_command(["train", "--config", path, *line])
    method = settings_from_config(config).method
    assert method.unused == ("sensitive", "attributes", "adversary")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_docstring_holds_the_command(path):
    assert re.search(rf"--config configs/{path.name}", path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chexpert_fairread", "table_fairread", "derm_fairread"])
def test_the_phantom_of_a_fair_experiment_has_enough_patients_to_compare_the_sexes(name, tmp_path):
    """Else its report is empty: of 1,200 films 42 women were tested, and 50 are the least."""
    config = load_config(f"{FOLDER / name}.py:phantom")
    config.data.root = str(tmp_path)
    dataset = open_data(settings_from_config(config), progress=False)
    people = dataset.manifest[dataset.manifest["split"] == "test"]
    for label in (f"label_{task}" for task in dataset.tasks):
        asked = people[people[label].notna() & people["sex"].isin(["F", "M"])]
        counts = asked.groupby(["sex", label])["patient_id"].nunique()
        assert counts.min() >= 10 and asked.groupby("sex")["patient_id"].nunique().min() >= 50
