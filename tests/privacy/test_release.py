"""What may leave a run: every channel refuses what is not on its list, and every writer asks."""

import ast
import json
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.privacy import accounting, release
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.run.log import Board, MetricsLog, progress_bar
from tests.privacy.toy import plan_of

PACKAGE = pathlib.Path(release.__file__).resolve().parents[1]
WITHHELD = ("loss", "batch_size", "steps_per_second", "clipped_share", "per_example_norms", "rate")


@pytest.mark.parametrize("channel", sorted(release.CHANNELS))
@pytest.mark.parametrize("name", WITHHELD)
def test_no_channel_lets_an_unknown_name_out(channel, name):
    with pytest.raises(release.ReleaseError) as caught:
        release.allowed(channel, {name: 1.0})
    sentence = str(caught.value)
    assert repr(name) in sentence and channel in sentence and "privacy/release.py" in sentence
    assert all(known in sentence for known in release.CHANNELS[channel])


@pytest.mark.parametrize("channel", sorted(set(release.CHANNELS) - {"checkpoint"}))
@pytest.mark.parametrize(
    "value",
    [np.zeros(3), jnp.zeros(3), np.float32(1.0), jnp.float32(1.0), True, (1.0, 2.0), {"a": 1j}],
    ids=lambda value: type(value).__name__,
)
def test_no_channel_but_a_checkpoint_lets_an_array_out(channel, value):
    names = {"evaluation": "auroc/test/anomaly/overall/all"}
    name = names.get(channel, "epsilon")
    with pytest.raises(release.ReleaseError, match=f"{name}.*{type(value).__name__}"):
        release.allowed(channel, {name: value})


@pytest.mark.parametrize("channel", ["metrics.jsonl", "board", "evaluation", "progress"])
def test_a_list_with_a_value_for_each_example_is_refused(channel):
    name = "auroc/x" if channel == "evaluation" else "epsilon"
    with pytest.raises(release.ReleaseError, match="as one number"):
        release.allowed(channel, {name: [0.1, 0.2, 0.3]})


def test_a_text_is_no_metric():
    with pytest.raises(release.ReleaseError, match="as one number or null"):
        release.allowed("metrics.jsonl", {"epsilon": "0.1 on 61 patients"})
    assert release.allowed("progress", {"name": "rsna_fae"}) == {"name": "rsna_fae"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epsilon", float("inf")),
        ("epsilon", "other"),
        ("unit", "hospital"),
        ("steps", 1.5),
        ("events", [{"steps": np.zeros(2)}]),
        ("stages", {3: "a number as a name"}),
    ],
)
def test_a_statement_holds_what_its_schema_says_and_nothing_else(name, value):
    with pytest.raises(release.ReleaseError, match=rf"'{name}' may leave a run by privacy\.json"):
        release.allowed("privacy.json", {name: value})


def test_a_whole_statement_passes_and_stays_as_it_is(tmp_path):
    for config in (PrivacyConfig(), PrivacyConfig(enabled=False)):
        plan = make_plan(config, steps=1, expected_batch_size=1, public_size=100)
        statement = plan.statement(plan.open_ledger(tmp_path / "none.jsonl"), 0)
        assert release.allowed("privacy.json", statement) == statement
        assert json.loads(json.dumps(statement, allow_nan=False)) == statement


def test_the_relations_of_the_list_are_those_that_can_be_priced():
    assert set(release.SCHEMA["relation"]) == set(accounting.RELATIONS)


def test_a_checkpoint_holds_parameters_optimiser_step_and_ledger_only():
    held = {"params": {"w": jnp.zeros(2)}, "opt_state": (), "step": 3, "ledger_head": "0"}
    assert release.allowed("checkpoint", held) == held
    for name in ("secret", "clipped_sum", "per_example_grads"):
        with pytest.raises(release.ReleaseError, match=name):
            release.allowed("checkpoint", held | {name: jnp.zeros(2)})


def test_the_log_refuses_and_then_holds_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for writes in (True, False):
        log = MetricsLog(path, after_step=0, writes=writes)
        with pytest.raises(release.ReleaseError, match="batch_size"):
            log.write(1, epsilon=0.5, batch_size=61)
        with pytest.raises(release.ReleaseError, match="noisy_mean_norm"):
            log.write(1, noisy_mean_norm=np.zeros(4))
    assert path.read_text() == ""
    MetricsLog(path, after_step=0).write(1, epsilon=0.5, noisy_mean_norm=0.1, params_norm=None)
    assert set(json.loads(path.read_text())) <= set(release.METRICS)


@pytest.mark.parametrize("covered", [True, False])
def test_the_board_refuses_what_is_not_on_its_list(tmp_path, covered):
    pytest.importorskip("tensorboardX")
    board = Board(tmp_path, private=True)
    with pytest.raises(release.ReleaseError, match="loss"):
        board.write(1, {"loss": 0.5}, covered=covered)
    with pytest.raises(release.ReleaseError, match="auroc/test"):
        board.write(1, {"auroc/test": 0.5}, covered=True)
    board.close()


def test_the_progress_line_shows_what_was_made_of_allowed_values_only():
    with progress_bar(3, what="training", hidden=True) as bar:
        bar.set_postfix_str(plan_of(1.0).progress(0.5))
        bar.set_postfix_str(plan_of(1.0).progress(None))
        for say in (bar.set_postfix_str, bar.set_description):
            with pytest.raises(release.ReleaseError, match=r"privacy\.release\.line"):
                say("61 patients drawn")
        bar.set_postfix(epsilon=0.5)
        with pytest.raises(release.ReleaseError, match="'loss' may not leave a run by progress"):
            bar.set_postfix(loss=0.1)
    assert plan_of(1.0).progress(0.5) == "epsilon 0.500 of 8"
    with pytest.raises(release.ReleaseError, match="loss"):
        release.line("{loss}", loss=0.1)


WRITERS = re.compile(r"^(write\w*|open|dump|save\w*|add_scalar\w*)$")
FILES = {"privacy", "metrics"}  # the run folder's names for privacy.json and metrics.jsonl


def writers(source):
    """Functions by which a file writes privacy.json, metrics.jsonl, a checkpoint or a board."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if not WRITERS.match(function):
            continue
        owner = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        parts = [part for value in (*owner, *node.args) for part in ast.walk(value)]
        named = {part.attr for part in parts if isinstance(part, ast.Attribute)}
        texts = {str(part.value) for part in parts if isinstance(part, ast.Constant)}
        reads = function == "open" and not texts & {"a", "w", "ab", "wb"}
        if function.startswith(("add_scalar", "save_checkpointables")) or (
            not reads and (named & FILES or texts & {"privacy.json", "metrics.jsonl"})
        ):
            yield function


def test_whoever_writes_a_statement_a_log_a_checkpoint_or_a_board_asks_the_list():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if list(writers(source)):
            found[str(path.relative_to(PACKAGE))] = "release.allowed(" in source
    assert {"run/log.py", "run/checkpoint.py"} < set(found)
    assert all(found.values()), [name for name, asks in found.items() if not asks]


def test_only_the_log_makes_event_files():
    makers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "SummaryWriter(" in path.read_text(encoding="utf-8")
    }
    assert makers == {"run/log.py"}


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("files.write_json(folder.privacy, {})", True),
        ("(folder.path / 'metrics.jsonl').write_text('')", True),
        ("open(folder.metrics, 'a')", True),
        ("writer.add_scalars('x', {})", True),
        ("checkpointer.save_checkpointables(3, {})", True),
        ("json.loads(folder.privacy.read_text())", False),
        ("open(folder.metrics)", False),
    ],
)
def test_the_search_for_writers_tells_writing_from_reading(source, wrong):
    assert bool(list(writers(source))) is wrong
