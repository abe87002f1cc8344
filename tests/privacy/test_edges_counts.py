"""Sharp edges of counting: who decides about whom, and what tells how many there are."""

import json
import os

import numpy as np
import pytest

from jaxfair.data import splits
from jaxfair.errors import InputError
from jaxfair.run import checkpoint
from jaxfair.run.folder import RunFolder
from tests.data.test_membership import crowd, prepared
from tests.engine import test_counts
from tests.engine.toy import N, open_toy, refusal, started
from tests.privacy.toy import Bench, examples_of, plan_of
from tests.run.test_checkpoint import checkpoint_at

PADDED = {"prob": 0.3, "padded_draws": True}


def test_edge_67_who_leaves_brings_nobody_in(tmp_path):
    table = crowd(tmp_path)
    everybody = prepared(tmp_path, table, tmp_path / "all", unit="patient")
    rest = prepared(tmp_path, table[table["person"] != "p1"], tmp_path / "rest", unit="patient")
    del everybody["p1"]
    assert rest == everybody


def test_edge_68_one_validation_patient_keeps_nobody_else_in_training():
    names, given = [str(i) for i in range(60)], ["validation"] + ["train"] * 59
    split = splits.split_as_published(names, given, salt="s", carve=True)
    without = splits.split_as_published(names[1:], given[1:], salt="s", carve=True)
    assert split[1:].tolist() == without.tolist()


def test_edge_69_a_step_is_the_same_work_whoever_is_drawn():
    bench = Bench(plan=plan_of(1.0, **PADDED))
    sizes = {
        len(list(bench.feed(examples_of(np.ones(count))).chunk_rows(number, 1)))
        for count in (3, 50, 51, 100)
        for number in range(12)
    }
    assert sizes == {bench.plan.least_chunks(8)}


def test_edge_70_a_population_as_large_as_declared_has_room():
    bench = Bench(plan=plan_of(1.0, **PADDED))
    feed = bench.feed(examples_of(np.ones(bench.plan.public_size)))
    drawn = [len(feed.draw(number)) for number in range(400)]
    assert max(drawn) <= bench.plan.max_draw and max(drawn) > 35


def test_edge_71_who_does_not_fit_is_drawn_all_the_same():
    feed = Bench(plan=plan_of(1.0, **PADDED)).feed(examples_of(np.ones(900)))
    rows = np.concatenate([asked.rows for asked in feed.chunk_rows(0, 1)])
    assert sorted(rows[rows >= 0]) == sorted(feed.draw(0))


def saved(folder):
    ledger = plan_of(1.0).open_ledger(folder / "ledger.jsonl")
    checkpoint.save(folder / "c", checkpoint_at(1), ledger)
    return folder / "c" / "1"


def test_edge_72_a_checkpoint_does_not_tell_how_long_it_took(tmp_path):
    told = json.loads((saved(tmp_path) / "_CHECKPOINT_METADATA").read_text())
    assert not any(value for name, value in told.items() if "timestamp" in name)


def test_edge_73_arrays_are_saved_without_a_time(tmp_path):
    kept = []
    for name in "ab":
        root = saved(tmp_path / name)
        parts = [p for part in ("params", "opt_state") for p in (root / part).rglob("*")]
        kept.append({
            str(p.relative_to(root)): p.read_bytes()
            for p in parts
            if p.is_file() and p.name != "commit_success.txt"
        })  # fmt: skip
    assert kept[0] == kept[1]


def test_edge_74_the_files_of_a_run_that_ended_have_one_time(tmp_path):
    (tmp_path / "before").write_text("")
    os.utime(tmp_path / "before", (7.0, 7.0))
    with open_toy(tmp_path):
        pass
    assert len({path.stat().st_mtime_ns for path in tmp_path.rglob("*")}) == 1


def test_edge_75_no_file_of_a_run_holds_a_count(tmp_path):
    """Before its first step; what follows is held by test_counts."""
    for count in (N, N + 1):
        with open_toy(tmp_path / str(count), insecure_seed=3, **test_counts.crowd(count)):
            pass
    ours, theirs = (test_counts.released(tmp_path / str(count)) for count in (N, N + 1))
    assert ours == theirs and {"config.json", "population.json", "privacy.json"} <= set(ours)


def test_edge_76_a_second_writer_is_refused(tmp_path):
    with open_toy(tmp_path / "run"), pytest.raises(InputError, match="Another process"):
        open_toy(tmp_path / "run")
    with RunFolder(tmp_path / "run").locked():
        pass


def test_edge_77_another_compiler_replays_nothing(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        started(tmp_path / "run")
        patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        assert "environment" in refusal(tmp_path / "run")
