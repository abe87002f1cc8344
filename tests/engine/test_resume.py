"""Killed anywhere and started again, a run ends bit-equal: parameters, draws, noise, epsilon."""

import json
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxfair import files, start, train
from jaxfair.engine import assembly, books, feed, trainer
from jaxfair.engine.optim import make_optimizer
from jaxfair.engine.trainer import Trainer
from jaxfair.errors import InputError
from jaxfair.methods.base import Method
from jaxfair.privacy import isolation, seals
from jaxfair.privacy import ledger as ledger_room
from jaxfair.privacy import secret as secret_room
from jaxfair.run import checkpoint, fingerprint
from tests import test_walk
from tests.small import small_config

UNITS, STEPS = 24, 6


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package may catch it."""


class ToyDataset:
    """A dataset of made-up images, two for every third patient."""

    unit, data, selection, population = "patient", "phantom", "independent", "made"

    def __init__(self, digest="toy"):
        self.digest = digest
        patients = np.repeat(np.arange(UNITS), np.where(np.arange(UNITS) % 3, 1, 2))
        self.manifest = pd.DataFrame({"patient_id": patients.astype(str)})
        self.pixels = np.random.default_rng(0).normal(size=(len(patients), 4, 4, 1))

    @property
    def fields(self):
        return {"image": lambda rows: self.pixels[rows].astype(np.float32)}

    def units(self, unit, split="train"):
        groups = self.manifest.groupby("patient_id").indices
        return list(groups), list(groups.values())


def toy_method(*_):
    def init(key, spec):
        return {"w": jax.random.normal(key, (16,)), "b": jnp.zeros(())}, {}

    def loss(params, frozen, example, key):
        kept = jax.random.bernoulli(key, 0.8, (16,))
        return jnp.tanh(
            jnp.sum(example["image"].ravel()[:16] * kept * params["w"]) + params["b"]
        ), {}

    return Method("toy", ("toy",), init, loss, lambda *a: {})


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Runs the real train on the toy; returns `run(name)`, the draws it made are recorded."""
    monkeypatch.setattr(start, "method_from_settings", toy_method)
    monkeypatch.setattr(train, "open_data", lambda *a, **k: ToyDataset())
    monkeypatch.setattr(train.evaluate, "run", lambda *a, **k: None)
    monkeypatch.setattr(train.report, "run", lambda *a, **k: None)
    monkeypatch.setattr(secret_room.secrets, "token_bytes", lambda n: bytes(range(n)))
    config = small_config(tmp_path, dp__epsilon=2.0, train__steps=STEPS)
    config.data.public_size = UNITS
    settings = train.settings_from_config(config)
    step = start.assembly_of(settings, train.make_mesh(1)).step
    monkeypatch.setattr(assembly, "make_step", lambda *args, **kwargs: step)  # compiled once
    monkeypatch.setattr(isolation, "check", lambda *args: None)

    def run(name, **kwargs):
        return train.run(config, tmp_path / name, num_devices=1, progress=False, **kwargs)

    return run


def fault_points(monkeypatch, kill_at):
    """Kills at the `kill_at`-th call of any function that changes a file or the state."""
    counter = {"calls": 0}

    def killing(function):
        def wrapped(*args, **kwargs):
            counter["calls"] += 1
            if counter["calls"] == kill_at:
                raise Killed
            result = function(*args, **kwargs)
            counter["calls"] += 1
            if counter["calls"] == kill_at:
                raise Killed
            return result

        return wrapped

    for room, name in (
        (files.os, "replace"),
        (files.os, "fsync"),
        (ledger_room.Ledger, "_append"),
        (seals, "seal_path"),
        (seals, "file_hashes"),
        (feed.Feed, "randomness"),
        (Trainer, "_pay"),
        (trainer, "kept"),
        (Trainer, "statement"),
    ):
        monkeypatch.setattr(room, name, killing(getattr(room, name)))
    return counter


def last_params(folder):
    params, _ = toy_method().init(jax.random.key(0), None)
    settings = train.settings_from_config(small_config(folder.path))
    like = checkpoint.Checkpoint(params, make_optimizer(settings.optim).init(params), 0)
    book = ledger_room.Ledger(folder.ledger, budget=8.0, delta=1e-5)
    return checkpoint.restore(folder.checkpoints, like, book)


def outcome(folder):
    """Everything of a finished run that has to be equal."""
    released = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    statement = json.loads(folder.privacy.read_text())
    params = jax.tree.map(np.asarray, last_params(folder))
    return params, released, statement["epsilon"], statement["ledger_head"]


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first[0], second[0])
    assert first[1:] == second[1:]


def kill_and_resume(toy, monkeypatch, name, kill_at):
    """Returns whether the kill came before the end, and the run's folder after a restart."""
    with monkeypatch.context() as faults:
        fault_points(faults, kill_at)
        try:
            return False, toy(name)
        except Killed:
            pass
    return True, toy(name)


def points(count):
    """Kill points spread evenly over the calls of one run."""
    return np.unique(np.linspace(1, 130, count).astype(int))


def check_kills(toy, monkeypatch, tmp_path, kill_points):
    whole = outcome(toy("whole"))
    killed = 0
    for kill_at in kill_points:
        came, folder = kill_and_resume(toy, monkeypatch, f"k{kill_at}", int(kill_at))
        killed += came
        assert_same(outcome(folder), whole)
        shutil.rmtree(tmp_path / f"k{kill_at}")
    return killed


def test_killed_at_a_dozen_points_ends_bit_equal(toy, monkeypatch, tmp_path):
    assert check_kills(toy, monkeypatch, tmp_path, points(12)) >= 8


@pytest.mark.slow
def test_killed_at_a_hundred_points_ends_bit_equal(toy, monkeypatch, tmp_path):
    assert check_kills(toy, monkeypatch, tmp_path, range(1, 121)) >= 100


def test_a_replay_is_charged_once(toy, monkeypatch):
    whole = toy("whole")
    _, resumed = kill_and_resume(toy, monkeypatch, "again", 60)
    assert resumed.ledger.read_bytes() == whole.ledger.read_bytes()


def interrupted(toy, monkeypatch, name):
    """Kills between the payment for the second stretch of steps and its checkpoint."""
    paid, pay, randomness = [], Trainer._pay, feed.Feed.randomness

    def paying(*args, **kwargs):
        paid.append(pay(*args, **kwargs))
        return paid[-1]

    def drawing(*args):
        if len(paid) == 2:
            raise Killed
        return randomness(*args)

    with monkeypatch.context() as faults, pytest.raises(Killed):
        faults.setattr(Trainer, "_pay", paying)
        faults.setattr(feed.Feed, "randomness", drawing)
        toy(name)


def test_a_copied_folder_is_refused(toy, monkeypatch, tmp_path):
    interrupted(toy, monkeypatch, "original")
    shutil.copytree(tmp_path / "original", tmp_path / "copy")
    with pytest.raises(InputError, match="place of the secret"):
        toy("copy")


def test_a_lost_secret_is_refused_and_recharge_pays_again(toy, monkeypatch, tmp_path):
    interrupted(toy, monkeypatch, "lost")
    shutil.rmtree(tmp_path / "lost" / "secret")
    with pytest.raises(InputError, match="--recharge"):
        toy("lost")
    monkeypatch.setattr(secret_room.secrets, "token_bytes", os.urandom)
    folder = toy("lost", recharge=True)
    statement = json.loads(folder.privacy.read_text())
    entries, _ = ledger_room.read_entries(folder.ledger)
    assert len({entry.draws for entry in entries}) == 2
    assert statement["epsilon"] <= statement["budget"]
    assert statement["steps"] < STEPS, "the budget is spent before all steps are done"


def test_a_research_seed_cannot_be_recharged(tmp_path):
    config = small_config(tmp_path, dp__insecure_seed=5)
    with pytest.raises(InputError, match="the same noise"):
        train.run(config, tmp_path / "seeded", recharge=True, progress=False)


def test_a_run_started_with_other_code_is_refused(toy, monkeypatch):
    interrupted(toy, monkeypatch, "old")
    monkeypatch.setattr(fingerprint, "digest_of_code", lambda: "other")
    with pytest.raises(InputError, match="changed since it began: code"):
        toy("old")


def test_a_run_whose_microbatch_changed_is_refused(toy, monkeypatch):
    interrupted(toy, monkeypatch, "sought")
    monkeypatch.setattr(books, "_chosen_microbatch", lambda *args: 4)
    with pytest.raises(InputError, match="changed since it began: clipping"):
        toy("sought")


@pytest.mark.slow
def test_ten_real_kills_end_bit_equal(tmp_path):
    config = small_config(tmp_path, dp__insecure_seed=5, dp__clipping="vmap")
    train.run(config, tmp_path / "whole", num_devices=1, progress=False)
    whole = test_walk.params_of(config, tmp_path / "whole")
    command = test_walk.command_of(tmp_path, tmp_path / "killed")
    generator = np.random.default_rng(0)
    kills = 0
    while kills < 10:
        delay = float(generator.uniform(1, 30))
        try:
            subprocess.run(command, timeout=delay, capture_output=True, check=True)
        except subprocess.TimeoutExpired:  # subprocess.run sends SIGKILL
            kills += 1
            continue
        jax.tree.map(
            np.testing.assert_array_equal, test_walk.params_of(config, tmp_path / "killed"), whole
        )
        shutil.rmtree(tmp_path / "killed")
    subprocess.run(command, capture_output=True, check=True)
    jax.tree.map(
        np.testing.assert_array_equal, test_walk.params_of(config, tmp_path / "killed"), whole
    )
