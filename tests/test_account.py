"""The verifier accepts a real run and rejects it after any single number is changed."""

import copy
import json
import pathlib
import shutil

import pytest

from jaxfair import account
from jaxfair.config import load_config, settings_from_config
from jaxfair.errors import InputError
from jaxfair.privacy.plan import make_plan
from jaxfair.privacy.queries import Query
from jaxfair.privacy.seals import digests
from jaxfair.privacy.statement import COVERED
from jaxfair.privacy.verify import SCHEMA, verify_run
from tests.small import CONFIG

PEOPLE = ("unit", "population", "data", "selection")


def make_run(folder: pathlib.Path, *, queries=(), group_probs=(), **dp) -> pathlib.Path:
    """The privacy files of a run, made by the plan and the ledger without any training.

    With queries or rates it is one that `engine.open` was given by hand, without a whole config.
    """
    config = load_config(CONFIG)
    config.update_from_flattened_dict({f"dp.{name}": value for name, value in dp.items()})
    settings = settings_from_config(config)
    plan = make_plan(
        settings.dp,
        steps=settings.train.steps,
        expected_batch_size=settings.train.expected_batch_size,
        public_size=settings.data.public_size,
        queries=queries,
        group_probs=group_probs,
    )
    ledger = plan.open_ledger(folder / "ledger.jsonl")
    for first in range(0, plan.steps, 50):
        plan.charge(
            ledger, stage="train", population="phantom", draws="a", first_step=first, steps=50
        )
    seeded = config.dp.insecure_seed is not None
    statement = plan.statement(ledger, plan.steps) | {
        "unit": "patient", "covered": COVERED.format(unit="patient"), "population": "phantom",
        "data": "phantom", "selection": "independent", "seed": config.seed,
        "noise_source": ("insecure_seed" if seeded else "os") if plan.private else None,
        "grade": ("research" if seeded else "private") if plan.private else "none",
    }  # fmt: skip
    told = config.to_dict()
    if queries or group_probs:
        del told["data"]["split"]
    write(folder / "config.json", told)
    write(folder / "population.json", {n: statement[n] for n in PEOPLE})
    (folder / "metrics.jsonl").write_text('{"step": 6}\n')
    statement |= digests(folder)
    write(folder / "env.json", {"versions": {"dp-accounting": statement["accountant"]["version"]}})
    write(folder / "privacy.json", statement)
    return folder


def write(path, content):
    path.write_text(json.dumps(content))


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def copied(run, tmp_path):
    return pathlib.Path(shutil.copytree(run, tmp_path / "copy"))


def numbers(tree, path=()):
    """Paths of all numbers in nested dicts and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        if isinstance(value, dict | list):
            yield from numbers(value, (*path, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*path, name)


def changed(tree, path):
    tree = copy.deepcopy(tree)
    *parents, last = path
    inner = tree
    for name in parents:
        inner = inner[name]
    inner[last] = inner[last] + 1 if isinstance(inner[last], int) else inner[last] * 1.001
    return tree


def test_a_true_run_verifies(run, capsys):
    assert verify_run(run) == []
    assert account.main(["account", f"--verify={run}"]) == 0
    assert "agrees" in capsys.readouterr().out


@pytest.mark.parametrize(
    "dp",
    [
        {"insecure_seed": 3},
        {"enabled": False},
        {"tuning_runs": 5},
        {"enabled": False, "tuning_runs": 5},
    ],
)
def test_research_plain_and_tuned_runs_verify(tmp_path, dp):
    assert verify_run(make_run(tmp_path, **dp)) == []


def test_every_changed_number_of_the_statement_is_found(run, copied):
    statement = read(run / "privacy.json")
    paths = list(numbers(statement))
    assert len(paths) >= 14
    for path in paths:
        write(copied / "privacy.json", changed(statement, path))
        assert verify_run(copied), f"{path} was changed and not found"


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_every_key_of_the_statement_is_checked(run, copied, name):
    statement = read(run / "privacy.json")
    write(copied / "privacy.json", {k: v for k, v in statement.items() if k != name})
    assert any(name in fault for fault in verify_run(copied))
    write(copied / "privacy.json", statement | {name: "other"})
    assert verify_run(copied), f"{name} was replaced and not found"


SEAMS = {"queries": (Query("counts", 1.0, 30.0),), "group_probs": (0.02, 0.1)}


@pytest.fixture(scope="module")
def seamed(tmp_path_factory):
    """A run with a side query and rates by group."""
    return make_run(tmp_path_factory.mktemp("seamed"), **SEAMS)


def test_a_run_with_side_queries_and_rates_by_group_verifies(seamed, tmp_path):
    assert verify_run(seamed) == []
    assert verify_run(make_run(tmp_path, enabled=False, **SEAMS)) == []


def test_every_changed_number_of_queries_and_groups_is_found(seamed, tmp_path):
    folder = pathlib.Path(shutil.copytree(seamed, tmp_path / "copy"))
    statement = read(seamed / "privacy.json")
    paths = [path for path in numbers(statement) if path[0] in ("queries", "group_sampling")]
    assert len(paths) == 2 * 3 + 3 * 3
    for path in [*paths, ("joint_noise_multiplier",)]:
        write(folder / "privacy.json", changed(statement, path))
        assert verify_run(folder), f"{path} was changed and not found"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("queries", [], "queries cannot be read"),
        ("queries", [{"name": "counts"}], "queries cannot be read"),
        ("group_sampling", [], "sampling_prob is"),
        ("group_sampling", [{"group": 0}], "group_sampling cannot be read"),
    ],
)
def test_missing_queries_and_groups_are_found(seamed, tmp_path, name, value, sentence):
    folder = pathlib.Path(shutil.copytree(seamed, tmp_path / "copy"))
    write(folder / "privacy.json", read(seamed / "privacy.json") | {name: value})
    assert any(sentence in fault for fault in verify_run(folder))


def test_a_side_query_left_out_and_a_second_of_its_name_are_found(seamed, tmp_path):
    folder = pathlib.Path(shutil.copytree(seamed, tmp_path / "copy"))
    statement = read(seamed / "privacy.json")
    gradient, side = statement["queries"]
    for listed, sentence in (
        ([gradient], "joint_noise_multiplier"),
        ([side], "queries begin with"),
        ([gradient, side, side], "are named 'counts'"),
    ):
        write(folder / "privacy.json", statement | {"queries": listed})
        assert any(sentence in fault for fault in verify_run(folder))


def test_every_changed_number_of_the_ledger_is_found(run, copied):
    lines = (run / "ledger.jsonl").read_text().splitlines()
    for place, line in enumerate(lines):
        entry = json.loads(line)
        for path in numbers(entry):
            text = json.dumps(changed(entry, path), sort_keys=True)
            (copied / "ledger.jsonl").write_text(
                "\n".join([*lines[:place], text, *lines[place + 1 :], ""])
            )
            assert verify_run(copied), f"line {place}, {path} was changed and not found"


@pytest.mark.parametrize("kept", [0, 1])
def test_a_shortened_ledger_is_found(run, copied, kept):
    lines = (run / "ledger.jsonl").read_text().splitlines(keepends=True)
    (copied / "ledger.jsonl").write_text("".join(lines[:kept]))
    assert verify_run(copied)


def test_a_changed_config_is_found(run, copied):
    config = read(run / "config.json")
    config["dp"]["epsilon"] = 80.0
    write(copied / "config.json", config)
    assert any("config_digest" in fault for fault in verify_run(copied))
    assert account.main(["account", f"--verify={copied}"]) == 1


def test_a_delta_above_what_the_public_size_allows_is_found(run, copied):
    for name, told in (("privacy.json", {"delta": 0.5}), ("config.json", {})):
        content = read(run / name) | told
        if name == "config.json":
            content["dp"] = content["dp"] | {"delta": 0.5}
        write(copied / name, content)
    assert any("above 0.1 / public_size" in fault for fault in verify_run(copied))


def test_a_folder_that_is_no_run_is_said_to_be_none(tmp_path):
    assert "cannot be read" in verify_run(tmp_path)[0]


@pytest.mark.parametrize("name", ["privacy.json", "config.json", "population.json"])
@pytest.mark.parametrize("content", ["[1]", "7", '{"a": '])
def test_a_damaged_file_of_a_run_is_a_fault_and_no_traceback(copied, name, content):
    (copied / name).write_text(content)
    assert [name in fault for fault in verify_run(copied)] == [True]


@pytest.mark.slow
def test_pricing_shows_steps_sigmas_and_persons_with_several_images(monkeypatch):
    monkeypatch.setattr(account, "_EPSILONS", ())
    monkeypatch.setattr(account, "_GROUPS", (1, 2))
    text = account.price(load_config(CONFIG))
    assert "epsilon (PLD)" in text and "sigma" in text and "k images" in text


def test_pricing_asks_for_each_number_of_images_at_all_steps(monkeypatch):
    asked = []
    monkeypatch.setattr(account, "_EPSILONS", ())
    for part in ("_meaning", "_over_steps"):
        monkeypatch.setattr(account, part, lambda plan, part=part: part)
    monkeypatch.setattr(
        account.accounting, "group_epsilon", lambda *given: asked.append(given) or 10.0 * given[2]
    )
    text = account.price(load_config(CONFIG))
    assert [k for _, _, k in asked] == [1, 2, 3, 5] and "_over_steps" in text
    event, delta, _ = asked[0]
    steps = settings_from_config(load_config(CONFIG)).train.steps
    assert event.steps == steps and delta == 1e-5 and {one for one, _, _ in asked} == {event}
    rows = text.split("If images were drawn one by one", 1)[1].splitlines()[2:]
    assert [row.split() for row in rows] == [[str(k), f"{10.0 * k:.4f}"] for k in (1, 2, 3, 5)]


def test_pricing_a_plain_config_is_refused():
    config = load_config(CONFIG)
    config.dp.enabled = False
    with pytest.raises(InputError, match="without privacy"):
        account.price(config)
