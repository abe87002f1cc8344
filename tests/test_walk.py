"""The walk of one image, end to end: DICOM files to a fairness table, privately."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import dp_accounting
import jax
import numpy as np
import pandas as pd
import pytest
from dp_accounting.pld import PLDAccountant

from jaxfair import train
from jaxfair.config import method_from_settings, plan_from_settings, settings_from_config
from jaxfair.engine.optim import make_optimizer
from jaxfair.errors import InputError
from jaxfair.privacy.verify import verify_run
from jaxfair.run import checkpoint
from jaxfair.run.checkpoint import Checkpoint, restore
from tests.small import CONFIG, OVERRIDES, small_config

RUN_FILES = {
    "config.json", "env.json", "metrics.jsonl", "ledger.jsonl", "checkpoints", "privacy.json",
    "predictions.parquet", "thresholds.json", "fairness.csv", "report.md",
}  # fmt: skip
PUBLIC_METRICS = {"step", "epsilon", "noisy_mean_norm", "params_norm"}
STATEMENT = {
    "epsilon", "epsilon_rdp", "delta", "unit", "relation", "accountant", "sampling_prob",
    "noise_multiplier", "l2_clip_norm", "steps", "expected_batch_size", "public_size",
    "noise_source", "grade", "data", "selection", "config_digest", "ledger_head",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("walk")


@pytest.fixture(scope="module")
def private(home):
    """A finished private run on two devices, by the default clipping."""
    train.run(small_config(home), home / "private", num_devices=2, progress=False)
    return home / "private"


@pytest.fixture(scope="module")
def plain(home):
    config = small_config(home, dp__enabled=False)
    train.run(config, home / "plain", num_devices=1, progress=False)
    return home / "plain"


def read_json(path):
    return json.loads(path.read_text())


def params_of(config, workdir):
    settings = settings_from_config(config)
    method = method_from_settings(settings)
    side = settings.data.stored.image_size
    spec = {"image": jax.ShapeDtypeStruct((side, side, 1), np.float32)}
    params, _ = method.init(jax.random.key(0), spec)
    like = Checkpoint(params, make_optimizer(settings.optim).init(params), 0)
    ledger = plan_from_settings(settings).open_ledger(workdir / "ledger.jsonl")
    return restore(workdir / "checkpoints", like, ledger)


def test_the_run_folder_holds_every_file(private):
    assert set(os.listdir(private)) >= RUN_FILES


def test_epsilon_follows_from_privacy_json_alone(private):
    statement = read_json(private / "privacy.json")
    assert set(statement) >= STATEMENT
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4)
    gaussian = dp_accounting.GaussianDpEvent(statement["noise_multiplier"])
    sampled = dp_accounting.PoissonSampledDpEvent(statement["sampling_prob"], gaussian)
    accountant.compose(dp_accounting.SelfComposedDpEvent(sampled, statement["steps"]))
    assert accountant.get_epsilon(statement["delta"]) == pytest.approx(
        statement["epsilon"], abs=1e-3
    )


def test_the_statement_names_unit_grade_and_data(private, plain):
    statement = read_json(private / "privacy.json")
    named = {name: statement[name] for name in ("unit", "grade", "data", "noise_source")}
    assert named == {"unit": "patient", "grade": "private", "data": "phantom", "noise_source": "os"}
    assert read_json(plain / "privacy.json")["epsilon"] is None
    assert read_json(plain / "privacy.json")["grade"] == "none"


def test_metrics_of_a_private_run_hold_released_values_only(private):
    lines = [json.loads(line) for line in (private / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {name for line in lines for name in line} == PUBLIC_METRICS
    assert [line["epsilon"] for line in lines] == sorted(line["epsilon"] for line in lines)


def test_the_secret_is_gone_when_the_run_ends(private):
    names = {path.name for path in private.rglob("*")}
    assert not names & {"secret", "secret.key", "fingerprint.json"}


def test_predictions_hold_validation_and_test_and_no_training_patient(private):
    table = pd.read_parquet(private / "predictions.parquet")
    wanted = {"image_id", "patient_id", "split", "task", "y_true", "y_score"}
    assert wanted | {"sex", "age", "age_group", "view"} <= set(table.columns)
    assert set(table["split"]) == {"validation", "test"}
    assert table["y_score"].notna().all() and set(table["y_true"]) == {0.0, 1.0}
    shared = set(table[table["split"] == "test"]["patient_id"])
    assert not shared & set(table[table["split"] == "validation"]["patient_id"])


def test_the_fairness_table_has_the_columns_of_the_contract(private):
    table = pd.read_csv(private / "fairness.csv")
    assert list(table.columns) == [
        "task", "split", "attribute", "group", "metric", "value",
        "ci_low", "ci_high", "n", "n_images", "n_positive", "covers",
    ]  # fmt: skip
    assert {"overall", "sex", "age_group", "view", "sex x age_group"} <= set(table["attribute"])


def test_the_report_says_phantom_and_what_is_covered_first(private):
    first = (private / "report.md").read_text().split("\n## ")[0]
    assert "PHANTOM" in first and "are not covered" in first and "covers each patient" in first
    assert "The extractor is an untrained ResNet-18" in first


def test_starting_a_finished_run_again_says_so(private, capsys):
    line = [f"--{'config.' + k}={v}" for k, v in OVERRIDES.items()]
    root = f"--config.data.root={private.parent / 'phantoms'}"
    status = train.main(["train", "--config", CONFIG, *line, root, f"--workdir={private}"])
    assert status == 0
    assert "finished run" in capsys.readouterr().out


def test_a_folder_of_another_config_is_refused_with_the_difference(home, private):
    other = small_config(home, dp__epsilon=4.0)
    with pytest.raises(InputError, match=r"dp\.epsilon was 8\.0, now 4\.0"):
        train.run(other, private, progress=False)


def test_missing_data_is_one_message_and_takes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("JAXFAIR_DATA", raising=False)
    command = ["train", "--config", CONFIG.removesuffix(":phantom"), "--config.dp.clipping=vmap"]
    assert train.main([*command, f"--workdir={tmp_path / 'run'}"]) == 2
    message = capsys.readouterr().err
    assert "JAXFAIR_DATA" in message and "rsna_fae.py:phantom" in message
    assert not (tmp_path / "run").exists()


def test_the_microbatch_is_sought_when_the_config_leaves_it_open(home, monkeypatch):
    config = small_config(home, dp__microbatch=0, dp__clipping="vmap", dp__enabled=False)
    monkeypatch.setattr("jaxfair.engine.microbatch.CANDIDATES", (4, 8))
    train.run(config, home / "sought", num_devices=1, progress=False)
    assert read_json(home / "sought" / "microbatch.json")["microbatch"] in (4, 8)


def test_a_research_seed_is_reproducible_and_stamped(home):
    config = small_config(home, dp__insecure_seed=5, dp__clipping="vmap")
    for name in ("a", "b"):
        train.run(config, home / name, num_devices=1, progress=False)
    first, second = (params_of(config, home / name) for name in ("a", "b"))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    statement = read_json(home / "a" / "privacy.json")
    assert (statement["grade"], statement["noise_source"]) == ("research", "insecure_seed")
    assert "not private" in (home / "a" / "report.md").read_text()[:2000]


def test_two_private_runs_of_one_config_differ(home, private):
    config = small_config(home)
    train.run(config, home / "again", num_devices=2, progress=False)
    first, second = (params_of(config, path) for path in (private, home / "again"))
    assert not np.array_equal(*(jax.tree.leaves(c.params)[0] for c in (first, second)))


@pytest.mark.slow
def test_a_second_stage_begins_where_the_first_ended_and_pays_for_both(home, private):
    config = small_config(home, dp__epsilon=10.0, train__start_from=str(private), train__steps=2)
    train.run(config, home / "second", num_devices=2, progress=False)
    first, second = (read_json(path / "privacy.json") for path in (private, home / "second"))
    assert second["inherited"] == 3 and len(second["stages"]["apart"]) == 2
    assert first["epsilon"] < second["epsilon"] <= 10.0
    assert second["epsilon"] < second["stages"]["epsilon_summed"]
    assert verify_run(home / "second") == []


def test_a_changed_dataset_is_refused_on_resume(home, monkeypatch):
    config = small_config(home, dp__clipping="vmap")
    stop_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, home / "changed", num_devices=1, progress=False)
    monkeypatch.undo()
    opened = train.open_data

    def other_data(*args, **kwargs):
        import dataclasses

        return dataclasses.replace(opened(*args, **kwargs), digest="other")

    monkeypatch.setattr(train, "open_data", other_data)
    with pytest.raises(InputError, match="changed since it began: data"):
        train.run(config, home / "changed", num_devices=1, progress=False)


def stop_after(monkeypatch, blocks):
    """Interrupts a run after so many checkpoints."""
    saved, original = [], checkpoint.save

    def save(*args):
        original(*args)
        saved.append(args)
        if len(saved) == blocks:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save)


def test_a_killed_run_resumes_to_bit_equal_parameters(home):
    config = small_config(home, dp__insecure_seed=5, dp__clipping="vmap")
    if not (home / "a").exists():
        train.run(config, home / "a", num_devices=1, progress=False)
    killed = home / "killed"
    command = command_of(home, killed)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(killed / "checkpoints" / "seal-2.json", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "privacy.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    jax.tree.map(
        np.testing.assert_array_equal, params_of(config, killed), params_of(config, home / "a")
    )
    assert (
        read_json(killed / "privacy.json")["epsilon"]
        == read_json(home / "a" / "privacy.json")["epsilon"]
    )


def command_of(home: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    overrides = OVERRIDES | {
        "data.root": home / "phantoms",
        "dp.insecure_seed": 5,
        "dp.clipping": "vmap",
    }
    line = [f"--config.{name}={value}" for name, value in overrides.items()]
    where = [f"--workdir={workdir}", "--devices=1"]
    return [sys.executable, "-m", "jaxfair.train", "--config", CONFIG, *line, *where]


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)
