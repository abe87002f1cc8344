"""A mitigation is chosen by name, in a config or on the line, and refused in one sentence."""

import pytest

from jaxfair import train
from jaxfair.config import (
    load_config,
    method_from_settings,
    parse_command,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.engine.optim import OptimConfig, make_optimizer
from jaxfair.errors import InputError
from jaxfair.experiment import experiment
from jaxfair.methods.base import carrying
from jaxfair.methods.mitigations.catalog import MITIGATIONS, Mitigation
from jaxfair.methods.mitigations.jtt import TrainTwice
from jaxfair.methods.mitigations.weights import GroupWeights
from jaxfair.privacy.ledger import read_entries
from jaxfair.privacy.verify import verify_run
from jaxfair.report.mitigated import cost_lines
from jaxfair.start import description, open_data, population_of
from tests.small import small_config

FILMS = "configs/chexpert_resnet.py:phantom"
SEX = "--config.data.groups=('sex',)"
LINES = {
    "group_weights": (SEX, "--config.mitigation.weights=(3.0,1.0)"),
    "group_norms": (SEX,),
    "group_dro": (SEX, "--config.dp.enabled=False", "--config.mitigation.rate=0.5"),
    "jtt": ("--config.mitigation.weight=8.0",),
    "balanced_head": (SEX, "--config.mitigation.shares=(0.4,0.1,0.4,0.1)"),
    "composition": (SEX, "--config.mitigation.keep=(1.0,0.5)"),
    "balance": (SEX, "--config.mitigation.shares=(0.6,0.4)"),
    "upsampling": (SEX, "--config.mitigation.factors=(2.0,1.0)"),
    "fine_tune": (SEX, "--config.mitigation.chosen=(0,)"),
    "core_set": ("--config.mitigation.where=('view=PA',)",),
    "data_size": ("--config.mitigation.portion=0.25",),
    "model_size": ("--config.mitigation.size=small",),
    "averaging": ("--config.mitigation.average=late",),
    "refit_head": ("--config.mitigation.share=0.5",),
    "noisy_counts": (SEX, "--config.mitigation.most=5.0"),
    "quantile_clip": ("--config.mitigation.quantile=0.7",),
    "bounded_clip": ("--config.mitigation.lowest=0.8",),
    "soft_clip": (),
    "global_clip": ("--config.mitigation.first=2.0",),
    "group_clip": (SEX, "--config.mitigation.memory=0.5"),
    "normalised_clip": ("--config.mitigation.gamma=0.1",),
    "weights_after_clip": (SEX, "--config.mitigation.weights=(3.0,1.0)"),
}


def settings_of(name, *line, config=FILMS):
    argv = ["train", "--config", config, f"--config.mitigation.name={name}", *line]
    return settings_from_config(parse_command(argv)[0])


def refusal(name, *line, config=FILMS):
    with pytest.raises(InputError) as caught:
        settings = settings_of(name, *line, config=config)
        method_from_settings(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("config", [FILMS, "configs/rsna_fae.py:phantom"])
@pytest.mark.parametrize("name", MITIGATIONS)
def test_every_mitigation_is_chosen_on_the_line(name, config):
    settings = settings_of(name, *LINES[name], config=config)
    assert settings.mitigation_name == name and method_from_settings(settings).tasks
    assert getattr(settings.mitigation, "attributes", {"sex": 2}) == {"sex": 2}
    told = description(settings)
    assert told["mitigation"] == name and MITIGATIONS[name].why in told["note"]
    assert told.get("needs") == (["sex"] if name == "group_norms" else None)


def test_what_is_left_open_has_its_default_and_what_is_said_arrives():
    assert settings_of("jtt").mitigation == TrainTwice()
    said = settings_of("jtt", "--config.mitigation.share=0.5", "--config.mitigation.label=edema")
    assert said.mitigation == TrainTwice(share=0.5, label="edema")


def test_groups_have_the_order_and_the_sizes_of_the_data():
    line = ("--config.data.groups=('view','sex')", "--config.mitigation.by=('sex',)")
    mitigation = settings_of("group_norms", *line).mitigation
    assert list(mitigation.attributes) == ["view", "sex"] and mitigation.by == ("sex",)
    assert mitigation.groups == 2


@pytest.mark.parametrize(
    ("name", "line", "sentence"),
    [
        ("jt", (), "mitigation.name is 'jt'; known mitigations are group_weights"),
        ("jtt", ("--config.mitigation.rate=0.5",), "mitigation.rate is not a field"),
        ("", ("--config.mitigation.weight=2.0",), "mitigation.weight is not a field"),
        ("group_norms", (), "set data.groups, for instance to ('sex',)"),
        ("group_dro", (SEX, "--config.mitigation.bound=0.0"), "mitigation.bound is 0.0"),
        ("noisy_counts", (SEX, "--config.mitigation.label=flu"), "mitigation.label is 'flu'; the"),
        ("noisy_counts", (SEX, "--config.mitigation.most=0.5"), "the largest weight is at least 1"),
        ("jtt", ("--config.mitigation.label=flu",), "the tasks of 'classifier' are atelectasis"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(name, line, sentence):
    assert sentence in refusal(name, *line)


def test_group_dro_has_its_own_form_under_privacy_and_without():
    plain = settings_of("group_dro", *LINES["group_dro"])
    assert not plain.mitigation.private and plan_from_settings(plain).rule is None
    assert method_from_settings(plain).batch_loss is not None
    private = settings_of("group_dro", SEX)
    assert private.mitigation.private and method_from_settings(private).batch_loss is None
    assert private.optim.parts == {} and private.mitigation.rule().reads_losses


def test_the_weights_of_group_dro_have_an_optimiser_of_their_own():
    settings = settings_of("group_dro", *LINES["group_dro"])
    own = settings.optim.of_part("group_dro")
    assert (own.name, own.learning_rate, own.momentum) == ("sgd", 0.5, 0.0)
    params = {"group_dro": {"log_weights": 1.0}, "head": 1.0}
    make_optimizer(settings.optim).init(params)
    assert settings_of("jtt").optim == OptimConfig(**load_config(FILMS).optim.to_dict())


def test_a_config_file_may_choose_one():
    parts = load_config(FILMS).to_dict()
    chosen = {name: parts[name] for name in ("data", "method", "optim", "dp", "train")}
    config = experiment("mine", **chosen, mitigation={"name": "jtt", "weight": 2.0})
    assert settings_from_config(config).mitigation == TrainTwice(weight=2.0)


def test_fields_of_one_name_have_one_type_in_all_mitigations():
    hints = {}
    for entry in MITIGATIONS.values():
        for name, hint in entry.config.__dataclass_fields__.items():
            assert hints.setdefault(name, hint.type) == hint.type


def test_help_shows_how_each_stands_to_privacy_and_the_values_of_the_chosen_one(capsys):
    line = ["train", "--config", FILMS, "--config.mitigation.name=jtt"]
    assert train.main([*line, "--config.mitigation.weight=8.0", "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert all(entry.standing in page for entry in MITIGATIONS.values())
    assert "weight = 8.0 public constant" in page and "share = 0.75 of all steps" in page


def test_the_door_builds_a_mitigated_feature_autoencoder(tmp_path):
    config = small_config(tmp_path, data__groups=("sex",))
    with config.unlocked():
        config.mitigation = {"name": "group_weights", "weights": (3.0, 1.0)}
    settings = settings_from_config(config)
    assert settings.mitigation == GroupWeights(attributes={"sex": 2}, weights=(3.0, 1.0))
    assert settings.data.spec["group"].shape == (1,)
    method = method_from_settings(settings)
    assert carrying(method, settings.data.spec).prepare is not method.prepare


def test_the_door_applies_the_mitigation_that_a_config_names(tmp_path, monkeypatch):
    marks = lambda config, method: method._replace(name=f"weighed by {config.weights}")
    entry = Mitigation(GroupWeights, marks, "fits", "it is a mark")
    monkeypatch.setitem(MITIGATIONS, "group_weights", entry)
    config = small_config(tmp_path, data__groups=("sex",))
    with config.unlocked():
        config.mitigation = {"name": "group_weights", "weights": (3.0, 1.0)}
    method = method_from_settings(settings_from_config(config))
    assert method.name == "weighed by (3.0, 1.0)"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jtt", "balanced_head"])
def test_a_run_of_two_stages_ends_in_a_claim_that_verifies_and_a_report_that_names_it(
    name, tmp_path
):
    line = (
        f"--config.data.root={tmp_path / 'data'}", "--config.data.phantom.n_images=200",
        "--config.data.public_size=120", "--config.train.expected_batch_size=60",
        "--config.train.steps=6", "--config.train.checkpoint_every=3",
    )  # fmt: skip
    argv = ["train", "--config", "configs/derm_probe.py:phantom", *line, *LINES[name]]
    run = tmp_path / "run"
    assert train.main([*argv, f"--config.mitigation.name={name}", f"--workdir={run}"]) == 0
    assert verify_run(run) == []
    assert [entry.stage for entry in read_entries(run / "ledger.jsonl")[0]][-1] == "train 2"
    assert (
        f"Trained with the mitigation {name!r}. It fits privacy" in (run / "report.md").read_text()
    )


def test_what_couples_or_counts_is_refused_by_name_at_the_door():
    said = refusal("copied_rows")
    assert "is refused: a patient whose rows are copied" in said and "'upsampling'" in said


def test_sizes_averages_and_compositions_arrive_in_their_sections():
    assert settings_of("model_size", "--config.mitigation.size=large").method.backbone == "resnet50"
    optim = settings_of("averaging", "--config.mitigation.average_from=5").optim
    assert (optim.average, optim.average_from) == ("ema", 5)
    data = settings_of("composition", *LINES["composition"]).data
    assert (data.composition.keep_by, data.composition.keep) == (("sex",), (1.0, 0.5))
    counted = settings_of("balance", SEX, "--config.mitigation.counted=True").data
    assert counted.selection == "coupled"


def test_upsampling_reaches_plan_people_and_statement(tmp_path):
    """Config -> plan -> who is drawn how often -> privacy.json -> the report's first page."""
    config = small_config(tmp_path, data__groups=("sex",))
    with config.unlocked():
        config.mitigation = {"name": "upsampling", "factors": (4.0, 1.0)}
    settings = settings_from_config(config)
    plan = plan_from_settings(settings)
    rate = 8 / 60
    assert plan.group_probs == pytest.approx((4 * rate, rate))
    assert plan.event(1).sampling_prob == pytest.approx(4 * rate) and plan.epsilon <= 8.0
    dataset = open_data(settings, progress=False)
    people = population_of(settings, dataset)
    sexes = [set(dataset.manifest["sex"].iloc[rows]) for rows in people.rows]
    codes = {("F",): 0, ("M",): 1}
    assert people.groups.tolist() == [codes.get(tuple(s), -1) for s in sexes]
    assert {0, 1} <= set(people.groups)
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    about = {"stage": "train", "population": "p", "draws": "d"}
    plan.charge(ledger, **about, first_step=0, steps=plan.steps)
    statement = plan.statement(ledger, plan.steps)
    by_group = {row["group"]: row["epsilon"] for row in statement["group_sampling"]}
    assert by_group[0] == pytest.approx(statement["epsilon"])
    assert by_group[0] > 2 * by_group[1] and by_group[1] == by_group[-1]
    told = description(settings)
    assert told["sampled_groups"] == ["F", "M"]
    (line,) = cost_lines(statement, told)
    assert f"F {by_group[0]:.4g} (drawn" in line and "The claim is the largest." in line
    plain = small_config(tmp_path, data__groups=("sex",))
    assert set(population_of(settings_from_config(plain), dataset).groups) == {-1}
