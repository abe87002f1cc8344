"""A search: what it tries, what it keeps, what it claims, and that it goes on after a kill."""

import json

import numpy as np
import pandas as pd
import pytest

from jaxfair import start, train, tune
from jaxfair.config import settings_from_config
from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.descent import read_earlier
from jaxfair.privacy.score import noisy_score, unit_scores
from jaxfair.privacy.search import Search, stopping_number
from jaxfair.privacy.secret import insecure_secret
from jaxfair.privacy.verify import verify_run
from jaxfair.tune import __main__ as command
from jaxfair.tune import trials
from jaxfair.tune.space import drawn, read_space, with_settings
from tests.engine.test_resume import ToyDataset, toy_method
from tests.small import small_config

SPACE = ["optim.learning_rate=0.001..1", "optim.name=adam|sgd"]
SEED = next(s for s in range(99) if stopping_number(Search(2.0), insecure_secret(s)) == 3)


def table_of(settings, folder, dataset):
    """Validation rows whose AUROC is the higher, the nearer the learning rate is to 0.1."""
    wrong = round(4 * abs(float(np.log10(settings.optim.learning_rate)) + 1))
    score = np.concatenate([np.linspace(0.9, 0.6, 20), np.linspace(0.5, 0.1, 20)])
    score[:wrong] = 0.0
    unit = [f"p{i // 2}" for i in range(40)]
    label = [1.0] * 20 + [0.0] * 20
    return pd.DataFrame({"patient_id": unit, "task": "toy", "y_true": label, "y_score": score})


@pytest.fixture
def toy(monkeypatch):
    """The door with a network of a few weights, made-up images and scores by the learning rate."""
    monkeypatch.setattr(start, "method_from_settings", toy_method)
    for module in (train, command):
        monkeypatch.setattr(module, "open_data", lambda *a, **k: ToyDataset())
    monkeypatch.setattr(trials, "_validation", table_of)
    monkeypatch.setattr(train.evaluate, "run", lambda *a, **k: None)
    monkeypatch.setattr(train.report, "run", lambda *a, **k: None)


def search_in(folder, **named):
    config = small_config(
        folder.parent, dp__epsilon=4.0, dp__insecure_seed=named.pop("seed", SEED),
        train__steps=4, data__public_size=24,
    )  # fmt: skip
    given = {"space": SPACE, "mean": 2.0, "num_devices": 1, "progress": False} | named
    return tune.run(config, folder, **given)


def test_the_best_run_is_kept_under_the_claim_of_the_search_and_all_else_is_gone(toy, tmp_path):
    chosen = search_in(tmp_path / "s")
    claim, config = (json.loads(p.read_text()) for p in (chosen.privacy, chosen.config))
    tried = pd.read_csv(tmp_path / "s" / "tried.csv")
    assert len(tried) == 3 and tried["score"].is_monotonic_decreasing
    assert config["optim"]["learning_rate"] == tried["optim.learning_rate"][0]
    assert 3.9 < claim["epsilon"] <= 4.0 and claim["accountant"]["name"] == "rdp"
    assert claim["tuning"]["search"]["epsilon_alone"] < claim["epsilon"]
    assert verify_run(chosen.path) == []
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"chosen", "lock", "search.json", "tried.csv", "tried.png"}
    for path in ("search.json", "chosen/config.json", "chosen/privacy.json"):
        told = json.loads((tmp_path / "s" / path).read_text())
        assert told.get("runs") is None and "trials" not in json.dumps(told)
    with pytest.raises(InputError, match="best run of a search"):
        read_earlier(chosen.path)


def test_a_search_that_is_killed_goes_on_where_it_was_and_ends_alike(toy, tmp_path, monkeypatch):
    whole = search_in(tmp_path / "whole")
    trained, real = [], trials.train.open_training

    def opened(config, *given, **named):
        trained.append(config.optim.learning_rate)
        return real(config, *given, **named)

    def killed(trial, *given):
        if trial.number == 1:
            raise KeyboardInterrupt
        return scored(trial, *given)

    scored = command.scored
    monkeypatch.setattr(trials.train, "open_training", opened)
    with monkeypatch.context() as patch:
        patch.setattr(command, "scored", killed)
        with pytest.raises(KeyboardInterrupt):
            search_in(tmp_path / "s")
    assert len(trained) == 2 and (tmp_path / "s" / "secret").exists() is False  # a research seed
    chosen = search_in(tmp_path / "s")
    assert len(trained) == len(set(trained)) == 3, "no run was trained twice"
    for name in ("tried.csv", "chosen/ledger.jsonl"):
        assert (tmp_path / "s" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    parameters = [
        json.loads(run.privacy.read_text())["parameters_digest"] for run in (whole, chosen)
    ]
    assert parameters[0] == parameters[1]
    assert search_in(tmp_path / "s").path == chosen.path and len(trained) == 3, "it is finished"


def test_a_secret_of_the_system_keys_a_search_and_is_forgotten(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "stopping_number", lambda search, secret: 1)
    seen = []

    def scored(trial, *given):
        seen.append((tmp_path / "s" / "secret" / "secret.key").stat().st_mode & 0o777)
        return 0.5

    monkeypatch.setattr(command, "scored", scored)
    chosen = search_in(tmp_path / "s", seed=None)
    assert seen == [0o600] and not (tmp_path / "s" / "secret").exists()
    assert json.loads(chosen.privacy.read_text())["grade"] == "private"


def test_another_search_and_other_data_are_refused(toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(command, "trained", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            search_in(tmp_path / "s")
    with pytest.raises(InputError, match="another search"):
        search_in(tmp_path / "s", mean=3.0)
    monkeypatch.setattr(command, "open_data", lambda *a, **k: ToyDataset("others"))
    with pytest.raises(InputError, match="changed since it began: data"):
        search_in(tmp_path / "s")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        search_in(tmp_path / "else")


def test_where_no_run_is_drawn_nothing_is_released(toy, tmp_path):
    law = Search(1.5, "poisson")
    seed = next(s for s in range(99) if stopping_number(law, insecure_secret(s)) == 0)
    for _ in range(2):  # and a second call says the same
        assert search_in(tmp_path / "s", mean=1.5, law="poisson", seed=seed) is None
    assert not (tmp_path / "s" / "chosen").exists()


def test_a_noisy_score_states_what_validation_patients_pay(toy, tmp_path):
    search_in(tmp_path / "s", validation_epsilon=2.0)
    told = json.loads((tmp_path / "s" / "search.json").read_text())["validation"]
    event = Event(1.0, told["noise_multiplier"], 1)
    paid = accounting.epsilon([event], told["delta"], search=Search(2.0))
    assert 1.99 < paid <= 2.0 and told["epsilon"] == paid
    tried = pd.read_csv(tmp_path / "s" / "tried.csv")["score"]
    assert tried.nunique() == 3 and tried.max() > 1, "noisy sums over 20 patients, no AUROC"


def test_every_run_of_a_search_has_noise_of_its_own_on_its_score(tmp_path, monkeypatch):
    """With one noise for all, comparing the scores would take it out again."""
    table = table_of(settings_from_config(small_config(tmp_path)), None, None)
    monkeypatch.setattr(trials, "_validation", lambda settings, folder, dataset: table)
    secret, found = insecure_secret(SEED), []
    for number in (0, 1):
        folder = trials.RunFolder(tmp_path / str(number))
        folder.path.mkdir()
        trial = trials.Trial(number, {}, small_config(tmp_path), folder)
        found.append(trials.scored(trial, None, (secret, 3.0)))
    exact = unit_scores(np.arange(40) // 2, table["y_true"], table["y_score"])
    assert found == [noisy_score(exact, 3.0, secret, number) for number in (0, 1)]
    assert found[0] != found[1]


def test_a_claim_whose_search_was_changed_is_found(toy, tmp_path):
    chosen = search_in(tmp_path / "s")
    claim = json.loads(chosen.privacy.read_text())
    for change in (
        {"epsilon": claim["tuning"]["search"]["epsilon_alone"]},
        {"tuning": {"runs": 1, "epsilon": None}},
        {"accountant": claim["accountant"] | {"name": "pld"}},
        {"not_covered": claim["not_covered"][:-1]},
        {"gaussian_mu": 0.5},
    ):
        chosen.privacy.write_text(json.dumps(claim | change))
        assert verify_run(chosen.path), change


@pytest.fixture
def config(tmp_path):
    return small_config(tmp_path)


def test_a_space_is_read_drawn_and_put_in(config):
    space = read_space([*SPACE, "method.hidden_dims=(8,8)|(4,4)"], config)
    assert [field.name for field in space] == sorted(field.name for field in space)
    generator = np.random.default_rng(0)
    found = [drawn(space, generator) for _ in range(200)]
    rates = np.log10([one["optim.learning_rate"] for one in found])
    assert rates.min() > -3 and rates.max() < 0 and abs(rates.mean() + 1.5) < 0.2
    assert {one["method.hidden_dims"] for one in found} == {(8, 8), (4, 4)}
    changed = with_settings(config, found[0])
    assert changed.optim.learning_rate == found[0]["optim.learning_rate"]
    assert config.optim.learning_rate != changed.optim.learning_rate


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "names what a search tries"),
        (["optim.name=sgd", "optim.name=adam"], "each field once"),
        (["optim.speed=1..2"], "is a field of the config"),
        (["optim.learning_rate"], "LOW..HIGH"),
        (["optim.learning_rate=0..1"], "0 < LOW < HIGH"),
        (["optim.learning_rate=a..b"], "0 < LOW < HIGH"),
        (["train.steps=10..20"], "at what price"),
        (["dp.epsilon=1|2"], "at what price"),
        (["data.public_size=1|2"], "at what price"),
    ],
)
def test_a_word_that_cannot_be_tried_is_refused_in_one_sentence(words, said, config):
    with pytest.raises(InputError, match=said) as caught:
        read_space(words, config)
    assert "\n" not in str(caught.value)


def test_what_a_search_asks_is_refused_where_it_makes_no_sense(toy, tmp_path, config):
    with pytest.raises(InputError, match="--mean is 1"):
        search_in(tmp_path / "s", mean=1.0)
    with config.unlocked():
        config.dp.tuning_runs = 3
    with pytest.raises(InputError, match="without payment"):
        tune.run(config, tmp_path / "s", space=SPACE)
    assert not (tmp_path / "s").exists()
