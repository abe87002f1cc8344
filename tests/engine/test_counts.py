"""What a run releases is the same however many units there are (protocol P16)."""

import json
import pathlib

import numpy as np
import pytest

from jaxfair.engine.features import training_fields
from jaxfair.engine.population import population_from_ids
from jaxfair.methods.base import Method
from jaxfair.privacy.sampling import OVERFLOW, draw_bound
from tests.engine.toy import FACTS, N, open_toy, plan_of
from tests.privacy import toy

ABOUT_NOISE = ("noisy_mean_norm", "params_norm")


def crowd(count):
    data = np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)
    return {"data": data, "people": population_from_ids(range(count), **FACTS)}


def released(folder: pathlib.Path) -> dict[str, object]:
    """All files of a run by name, without what the noise decides: values, and hashes of them."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name == "commit_success.txt":  # which names the folder
            continue
        if name.startswith("tensorboard/"):
            found["tensorboard"] = path.stat().st_size
        elif name.startswith("checkpoints/") and "c" in path.relative_to(folder).parts:
            found[name] = "values"
        elif path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{k: v for k, v in li.items() if k not in ABOUT_NOISE} for li in lines]
        elif path.name.startswith("seal-"):
            seal = json.loads(path.read_text())
            found[name] = seal | {"files": sorted(seal["files"]), "parameters_digest": "values"}
        elif path.name == "privacy.json":
            digests = dict.fromkeys(("parameters_digest", "metrics_digest"), "values")
            found[name] = json.loads(path.read_text()) | digests
        else:
            found[name] = path.read_bytes()
    return found


def run(folder, count, **fields):
    with open_toy(folder, insecure_seed=3, board=True, **crowd(count), **fields) as trainer:
        chunks = [len(list(trainer._feed().chunk_rows(number, 1))) for number in range(8)]
        for _ in trainer.steps():
            pass
    return released(folder), chunks


def test_nothing_that_a_run_leaves_depends_on_how_many_there_are(tmp_path):
    ours, chunks = run(tmp_path / "a" / "run", N)
    assert {"config.json", "env.json", "ledger.jsonl", "metrics.jsonl"} <= set(ours)
    assert {"privacy.json", "tensorboard", "checkpoints/8/_CHECKPOINT_METADATA"} <= set(ours)
    for count in (N + 1, 2 * N):
        theirs, others = run(tmp_path / str(count) / "run", count)
        assert theirs.keys() == ours.keys()
        assert [name for name in ours if ours[name] != theirs[name]] == []
        assert others == chunks == [4] * 8, "draws of any size take the same work"


def test_padding_changes_no_parameter_and_its_absence_is_said(tmp_path):
    ended = []
    for padded in (True, False):
        plan, folder = plan_of(padded_draws=padded), tmp_path / str(padded)
        with open_toy(folder, plan=plan, insecure_seed=3) as trainer:
            chunks = {len(list(trainer._feed().chunk_rows(n, 1))) for n in range(8)}
            for _ in trainer.steps():
                pass
            ended.append(np.asarray(trainer.params()["w"]))
        told = json.loads((folder / "privacy.json").read_text())
        assert told["padded_to"] == (draw_bound(N, 10 / N) if padded else None)
        assert any("sizes of draws" in line for line in told["not_covered"]) != padded
        assert (len(chunks) == 1) == padded
    np.testing.assert_array_equal(*ended)


def test_a_plain_run_is_not_padded():
    plan = plan_of(enabled=False)
    assert plan.padded_to is None and plan.least_chunks(1) == 1


def test_a_draw_above_the_bound_takes_more_chunks_and_loses_nobody(tmp_path):
    with open_toy(tmp_path, insecure_seed=3, **crowd(9 * N)) as trainer:
        feed = trainer._feed()
        parts = [asked.rows for asked in feed.chunk_rows(0, 1)]
    drawn = np.concatenate(parts)
    assert len(parts) > 4
    wanted = np.concatenate([feed.population.rows[unit] for unit in feed.draw(0)])
    assert sorted(drawn[drawn >= 0]) == sorted(wanted)


def test_the_largest_rate_of_a_group_decides_the_size():
    plan = toy.plan_of(prob=0.25, group_probs=(0.1, 0.6), padded_draws=True)
    assert plan.max_draw == plan.padded_to == draw_bound(100, 0.6) > draw_bound(100, 0.25)
    assert draw_bound(N, 1.0) == N and draw_bound(N, 0.0) == 0 and OVERFLOW == 2.0**-40


@pytest.mark.parametrize("gone", [0, 5, 69])
def test_features_of_the_others_are_bit_equal_without_somebody(gone):
    """Whoever is missing shifts the batches in which features are computed."""
    rng = np.random.default_rng(1)
    data, weights = (rng.normal(size=s).astype(np.float32) for s in ((70, 24), (24, 9)))
    prepare = lambda frozen, raw: {"x": np.float32(1) / (1 + (raw["x"] @ weights) ** 2)}
    method = Method("toy", (), None, None, None, prepare=prepare)
    fields, rows = {"x": data.__getitem__}, np.arange(70)
    whole = training_fields(method, {}, fields, rows, progress=False)["x"](rows)
    rest = np.delete(rows, gone)
    fewer = training_fields(method, {}, fields, rest, progress=False)["x"](rest)
    np.testing.assert_array_equal(fewer, whole[rest])
