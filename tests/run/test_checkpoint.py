"""A checkpoint is used only if it is whole, this run's, and covered by the ledger."""

import ast
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair.errors import InputError
from jaxfair.privacy.ledger import Entry, Ledger
from jaxfair.run.checkpoint import Checkpoint, restore, save


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl", budget=8.0, delta=1e-5)
    ledger.charge(Entry("train", "made", "tag", 0, 10, 0.01, 1.0))
    return ledger


def checkpoint_at(step):
    params = {"w": jnp.arange(6.0).reshape(2, 3) + step, "b": jnp.ones(3, jnp.bfloat16)}
    return Checkpoint(params, optax.adam(1e-3).init(params), step)


def damage(folder: pathlib.Path, step: int):
    """Flips a byte in the middle of every data file of a checkpoint."""
    root = folder / str(step)
    files = [p for p in root.rglob("*") if p.is_file() and "c" in p.relative_to(root).parts]
    assert files
    for victim in files:
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 0xFF
        victim.write_bytes(bytes(content))


def test_a_checkpoint_comes_back_bit_equal_with_its_structure(tmp_path, ledger):
    saved = checkpoint_at(10)
    save(tmp_path / "c", saved, ledger)
    found = restore(tmp_path / "c", checkpoint_at(0), ledger)
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    jax.tree.map(np.testing.assert_array_equal, found, saved)


def test_without_checkpoints_there_is_nothing_to_restore(tmp_path, ledger):
    assert restore(tmp_path / "c", checkpoint_at(0), ledger) is None


def test_a_checkpoint_without_its_seal_does_not_count(tmp_path, ledger):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    save(tmp_path / "c", checkpoint_at(2), ledger)
    (tmp_path / "c" / "seal-2.json").unlink()
    assert restore(tmp_path / "c", checkpoint_at(0), ledger).step == 1


def test_a_truncated_seal_is_passed_over(tmp_path, ledger, capsys):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    save(tmp_path / "c", checkpoint_at(2), ledger)
    (tmp_path / "c" / "seal-2.json").write_text('{"files')
    assert restore(tmp_path / "c", checkpoint_at(0), ledger).step == 1
    assert "seal cannot be read" in capsys.readouterr().err


def test_only_the_last_two_are_kept(tmp_path, ledger):
    for step in (1, 2, 3):
        save(tmp_path / "c", checkpoint_at(step), ledger)
    kept = {p.name for p in (tmp_path / "c").iterdir() if p.name.isdigit()}
    assert kept == {"2", "3"}


def test_a_damaged_checkpoint_is_passed_over_for_the_last_good_one(tmp_path, ledger, capsys):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    save(tmp_path / "c", checkpoint_at(2), ledger)
    damage(tmp_path / "c", 2)
    assert restore(tmp_path / "c", checkpoint_at(0), ledger).step == 1
    assert "Checkpoint 2 is passed over" in capsys.readouterr().err


def test_when_no_checkpoint_is_good_the_run_is_refused(tmp_path, ledger):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    damage(tmp_path / "c", 1)
    with pytest.raises(InputError, match="None of the 1 checkpoints"):
        restore(tmp_path / "c", checkpoint_at(0), ledger)


def test_a_checkpoint_of_another_ledger_is_refused(tmp_path, ledger, capsys):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    other = Ledger(tmp_path / "other.jsonl", budget=8.0, delta=1e-5)
    with pytest.raises(InputError):
        restore(tmp_path / "c", checkpoint_at(0), other)
    assert "ledger" in capsys.readouterr().err


def test_a_checkpoint_with_a_longer_ledger_is_accepted(tmp_path, ledger):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    ledger.charge(Entry("train", "made", "tag", 10, 10, 0.01, 1.0))
    assert restore(tmp_path / "c", checkpoint_at(0), ledger).step == 1


def test_checkpoints_hold_no_secret_and_no_sum_of_gradients(tmp_path, ledger):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    kept = {p.name for p in (tmp_path / "c" / "1").iterdir() if p.is_dir()}
    assert kept == {"params", "opt_state"}
    metadata = json.loads((tmp_path / "c" / "1" / "params" / "_METADATA").read_text())
    assert {ast.literal_eval(path)[0] for path in metadata["tree_metadata"]} == {"w", "b"}


def test_a_checkpoint_does_not_tell_when_it_was_written(tmp_path, ledger):
    """Neither in a name nor in a byte: the time between two would give the rate."""
    kept = []
    for attempt in ("a", "b"):
        save(tmp_path / attempt, checkpoint_at(1), ledger)
        paths = [p for p in (tmp_path / attempt).rglob("*") if p.is_file()]
        kept.append({
            str(p.relative_to(tmp_path / attempt)): p.read_bytes()
            for p in paths
            if p.name not in ("commit_success.txt", "seal-1.json")  # these name the folder
        })  # fmt: skip
    assert kept[0] == kept[1] and any("zarr" in name for name in kept[0])
    metadata = json.loads(kept[0]["1/_CHECKPOINT_METADATA"])
    assert metadata["init_timestamp_nsecs"] == metadata["commit_timestamp_nsecs"] == 0


def test_saving_says_nothing_of_what_orbax_does_inside(tmp_path, ledger, caplog):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    assert not caplog.records


def test_parameters_can_be_restored_without_the_optimiser(tmp_path, ledger):
    save(tmp_path / "c", checkpoint_at(1), ledger)
    found = restore(tmp_path / "c", checkpoint_at(0)._replace(opt_state=None), ledger)
    jax.tree.map(np.testing.assert_array_equal, found.params, checkpoint_at(1).params)
