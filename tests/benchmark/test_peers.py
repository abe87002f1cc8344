"""Peers on one card: in order of worth, within a budget, and who is out of memory says so."""

import argparse
import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).resolve().parents[2] / "experiments/e07_throughput/peers/run.py"


@pytest.fixture
def peers(monkeypatch):
    """The script, with workers that are no processes: Opacus fits 40 examples, one is broken."""
    spec = importlib.util.spec_from_file_location("peers_run", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Worker:
        def __init__(self, way, work, rows, clip, precision, errors=None):
            if way.startswith("opacus") and rows > 40:
                errors.write("torch.OutOfMemoryError: CUDA out of memory.")
                raise RuntimeError
            if way == "jax-privacy":
                errors.write("ModuleNotFoundError: jax_privacy")
                raise RuntimeError
            self.way, self.turns, self.seconds = way, [], rows / 100
            self.facts = {"device": "card", "parameters": 1}

        def turn(self):
            self.turns.append({"wall": self.seconds, "cpu": self.seconds})

        def close(self):
            self.facts["peak_process_mib"] = 1.0

    monkeypatch.setattr(module, "Worker", Worker)
    return module


def given(budget):
    return argparse.Namespace(
        budget_s=budget, works=["fae"], rows=None, ways=None, rounds=3, precision="tf32"
    )


def test_who_is_out_of_memory_is_measured_at_the_largest_half_that_fits(peers, capsys):
    rows = []
    peers.budgeted(given(60.0), rows.append)
    found = {row["way"]: row for row in rows}
    assert list(found) == [way for way in peers.WORTH if way != "jax-privacy"]
    assert "jax-privacy ended: ModuleNotFoundError" in capsys.readouterr().err
    fast, opacus = found["jaxfair-fast"], found["opacus-hooks"]
    assert (fast["batch"], fast["out_of_memory_at"]) == (512, None)
    assert (opacus["batch"], opacus["out_of_memory_at"]) == (32, 64)
    assert opacus["examples_per_second"] == pytest.approx(fast["examples_per_second"])
    assert opacus["fast_is_x_faster"] == pytest.approx(1.0)


def test_a_spent_budget_measures_nothing_more(peers):
    rows = []
    peers.budgeted(given(-1.0), rows.append)
    assert rows == []
