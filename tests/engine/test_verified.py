"""The verifier after every honest ending of a real training, and after exchanges between two."""

import hashlib
import os
import shutil

import numpy as np
import pytest

from jaxfair.engine.population import population_from_ids
from jaxfair.privacy.descent import read_earlier
from jaxfair.privacy.verify import check_run, verify_run
from jaxfair.run import checkpoint
from tests.engine.toy import FACTS, N, open_toy, plan_of, staged, started
from tests.privacy.chains import change, read


def finished(folder, **fields):
    open_toy(folder, **fields).run()


def recharged(folder):
    """Steps that were paid for are lost and paid again, so the budget ends before the steps."""
    died(folder)
    open_toy(folder, recharge=True).run()
    assert read(folder)["steps"] < 8


def resumed(folder):
    started(folder)
    finished(folder)


def stopped(folder):
    with open_toy(folder) as trainer:
        next(trainer.steps())


def unbegun(folder):
    with open_toy(folder):
        pass


def died(folder):
    """The ledger paid for steps that no checkpoint has."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stop(*arguments):
            raise KeyboardInterrupt

        patch.setattr(checkpoint, "save", stop)
        finished(folder)


def paid_and_died(folder):
    died(folder)
    unbegun(folder)


def torn(folder):
    """A power cut after the end: half a line more in the ledger."""
    finished(folder)
    with open(folder / "ledger.jsonl", "ab") as file:
        file.write(b'{"stage": "tr')


ENDINGS = {
    "finished": finished,
    "plain": lambda folder: finished(folder, plan=plan_of(enabled=False)),
    "research": lambda folder: finished(folder, insecure_seed=3),
    "several stages": lambda folder: finished(folder, method=staged(2.0)),
    "resumed": resumed,
    "recharged": recharged,
    "stopped early": stopped,
    "no step": unbegun,
    "paid and died": paid_and_died,
    "a torn line": torn,
}


def everything(folder):
    """Name, bytes, time of writing and mode of all that lies there, folders too."""
    return {
        str(path): (
            path.stat().st_mtime_ns,
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(folder.parent.rglob("*"))
    }


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_honest_ending_verifies_and_nothing_on_disk_changes(tmp_path, ending):
    ENDINGS[ending](tmp_path / "run")
    before = everything(tmp_path / "run")
    assert check_run(tmp_path / "run") == ([], [])
    assert everything(tmp_path / "run") == before


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A private run, and one without privacy of the same network and data."""
    home = tmp_path_factory.mktemp("pair")
    finished(home / "private")
    finished(home / "plain", plan=plan_of(enabled=False))
    return home / "private", home / "plain"


@pytest.mark.parametrize(
    ("part", "said"),
    [("checkpoints", "parameters_digest"), ("metrics.jsonl", "metrics_digest")],
)
def test_a_part_of_a_plain_run_in_a_private_folder_is_found(pair, tmp_path, part, said):
    folder = shutil.copytree(pair[0], tmp_path / "run")
    assert verify_run(folder) == []
    if (folder / part).is_dir():
        shutil.rmtree(folder / part)
        shutil.copytree(pair[1] / part, folder / part)
    else:
        shutil.copy(pair[1] / part, folder / part)
    (fault,) = verify_run(folder)
    assert said in fault


def test_arrays_alone_that_were_exchanged_under_the_old_seal_are_found(pair, tmp_path):
    folder = shutil.copytree(pair[0], tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "8")
    shutil.copytree(pair[1] / "checkpoints" / "8", folder / "checkpoints" / "8")
    assert any("parameters_digest" in fault for fault in verify_run(folder))


@pytest.mark.parametrize("part", ["checkpoints", "metrics.jsonl"])
def test_parameters_and_metrics_that_are_lost_are_found(pair, tmp_path, part):
    folder = shutil.copytree(pair[0], tmp_path / "run")
    os.rename(folder / part, tmp_path / part)
    assert verify_run(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"unit": "lesion"},
        {"data": "phantom"},
        {"selection": "coupled"},
        {"population": "others"},
        {"grade": "research"},
        {"noise_source": "insecure_seed"},
        {"tuning": {"runs": 2, "epsilon": None}},
        {"covered": "everybody"},
        {"parameters_digest": ""},
        {"metrics_digest": ""},
    ],
)
def test_every_word_of_a_claim_is_compared_with_something_else(pair, tmp_path, values):
    folder = shutil.copytree(pair[0], tmp_path / "run")
    change(folder, **values)
    (name,) = values
    assert any(name in fault for fault in verify_run(folder))


def test_real_people_do_not_become_drawn_ones(tmp_path):
    """data real -> phantom, in a run whose config has no word of it."""
    people = population_from_ids(range(N), **FACTS, data="real")
    finished(tmp_path / "run", people=people)
    change(tmp_path / "run", data="phantom", covered=read(tmp_path / "run")["covered"])
    assert any("data is 'phantom'" in fault for fault in verify_run(tmp_path / "run"))


def test_two_checkpoints_have_one_digest_only_if_they_hold_the_same():

    base = checkpoint.Checkpoint({"w": np.zeros((2, 3), np.float32)}, {"n": np.zeros(1)}, 4)
    other = [
        base._replace(params={"v": np.zeros((2, 3), np.float32)}),
        base._replace(params={"w": np.zeros((3, 2), np.float32)}),
        base._replace(params={"w": np.zeros((2, 3), np.int32)}),
        base._replace(params={"w": np.full((2, 3), -0.0, np.float32)}),
        base._replace(opt_state={"n": np.ones(1)}),
        base._replace(opt_state={}),
    ]
    assert len({checkpoint.digest_of(one) for one in (base, *other)}) == 7
    assert checkpoint.digest_of(base._replace(step=9)) == checkpoint.digest_of(base)


@pytest.mark.parametrize("steps", [0, 6])
def test_steps_that_are_not_those_of_the_parameters_are_found(pair, tmp_path, steps):
    """The ledger pays for more, so fewer steps agree with it; and with the noise they decide."""
    folder = shutil.copytree(pair[0], tmp_path / "run")
    change(folder, steps=steps)
    assert verify_run(folder) == [f"steps is {steps}, but the last checkpoint is of 8"]


@pytest.mark.slow
def test_a_chain_of_runs_without_config_files_verifies(tmp_path, monkeypatch):
    """A plan that begins with another run says so in config.json, as train.start_from does."""
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / "first", insecure_seed=3)
    earlier = read_earlier("first")
    later = plan_of({"earlier": earlier}, epsilon=9.0)
    finished(tmp_path / "second", plan=later)
    assert read(tmp_path / "second")["grade"] == "research"
    assert check_run(tmp_path / "second") == ([], [])
    third = plan_of({"earlier": read_earlier("second")}, epsilon=12.0)
    finished(tmp_path / "third", plan=third)
    assert check_run(tmp_path / "third") == ([], [])
    assert read(tmp_path / "third")["tuning"]["runs"] == 3
    shutil.rmtree(tmp_path / "first")
    finished(tmp_path / "first")
    faults = verify_run(tmp_path / "second")
    assert faults and "is not the one that this run began with" in faults[0]


def test_a_plain_first_stage_under_a_private_last_one_is_found(pair, tmp_path):
    """What the last stage holds fast comes from the checkpoint that the first one ended with."""
    folder = tmp_path / "private"
    finished(folder, method=staged(2.0))
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(pair[1] / "checkpoints", folder / "checkpoints")
    assert any("parameters_digest" in fault for fault in verify_run(folder))
