"""The benchmark measures what it says: all ways, their errors, every device."""

import json
import pathlib
import time

import numpy as np
import pytest

from jaxfair.benchmark import __main__ as command
from jaxfair.benchmark import measure, results, stopwatch
from jaxfair.config import load_config
from jaxfair.errors import InputError

CONFIG = str(pathlib.Path(__file__).resolve().parents[2] / "configs" / "throughput.py")


def tiny():
    config = load_config(CONFIG)
    config.only, config.rounds, config.seconds, config.largest_batch = ("fae",), 1, 1.0, False
    config.works.fae.image, config.works.fae.batch = (16, 16, 1), 3
    config.works.fae.options.hidden_dims = (4,)
    return config


@pytest.fixture(scope="module")
def rows():
    return measure.measure(tiny(), devices=2)["rows"]


def test_every_way_is_measured_and_right_on_every_device(rows):
    assert [row["way"] for row in rows] == list(measure.WAYS)
    for row in rows:
        assert row["devices"] == 2
        assert row["batch"] == 4, "rounded up to the device count"
        assert row["relative_error"] < 1e-5
        assert row["isolation_error"] < 1e-5
        assert row["examples_per_second"] > 0
        assert row["memory_mib"] > 0
        assert row["compile_seconds"] > 0


@pytest.fixture(scope="module")
def within_budget(tmp_path_factory):
    """The GPU's config, tiny, measured by the command's own process within a budget."""
    out = tmp_path_factory.mktemp("budget") / "gpu.json"
    config = load_config(f"{CONFIG}:gpu")
    config.only, config.precisions, config.rounds, config.seconds = ("ae",), ("tf32",), 1, 1.0
    options = {"hidden_dims": (4,), "loss": "mse"}
    work = {"method": "ssim_autoencoder", "options": options, "prepared": False}
    config.works.ae = work | {"image": (16, 16, 1), "batch": 4}
    config.check_rows, config.explain = 2, True
    return command.run(config, out, budget_s=3600.0), json.loads(out.read_text())


def test_a_budget_writes_what_it_measured_and_errors_of_a_few_rows(within_budget):
    content, written = within_budget
    assert content == written
    plain, fast = content["rows"]
    assert (plain["way"], fast["way"], fast["precision"]) == ("non-private", "fast", "tf32")
    assert plain["relative_error"] < 1e-5
    assert 1e-7 < fast["relative_error"] < 1e-2, "operands are rounded to TF32"
    assert fast["isolation_error"] < 1e-2


def test_each_leaf_is_predicted_and_measured(within_budget):
    leaves = within_budget[0]["rows"][1]["leaves"]
    assert len(leaves) > 4
    assert all(min(row["predicted_ms"], row["norms_ms"], row["sum_ms"]) > 0 for row in leaves)
    assert {row["way"] for row in leaves} <= {"ghost", "product", "kept", "vmap"}


def test_no_work_begins_after_the_budget(monkeypatch):
    began = []
    monkeypatch.setattr(measure, "_measure_work", lambda *a: began.append(a[1]) or [])
    monkeypatch.setattr(stopwatch, "ceilings", lambda precision: {})
    config, kept = load_config(f"{CONFIG}:gpu"), []
    measure.measure(config, devices=1, until=time.monotonic() - 1, keep=kept.append)
    assert not began and not kept
    measure.measure(config, devices=1, keep=kept.append)
    assert began == [name for name in config.only for _ in config.precisions]
    assert len(kept) == len(began)


def test_ratios_are_to_the_non_private_way(rows):
    assert rows[0]["ratio"] == 1.0
    assert all(row["ratio_spread"]["min"] <= row["ratio"] for row in rows)


def test_the_rows_become_a_table_and_json(rows):
    lines = command.table(rows).splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({line.count("|") for line in lines}) == 1
    json.dumps(rows, allow_nan=False)


def test_works_measured_before_by_the_same_code_stay_in_the_file(tmp_path):
    out = tmp_path / "x.json"
    here = {"environment": {"code": "a", "commit": "1"}}
    row = lambda work, speed, devices=1: {"work": work, "devices": devices, "speed": speed}
    results.write(out, here | {"rows": [row("fae", 1), row("net", 2), row("net", 3, devices=2)]})
    results.write(
        out, here | {"environment": {"code": "a", "commit": "2"}, "rows": [row("net", 4)]}
    )
    expected = [row("fae", 1), row("net", 3, devices=2), row("net", 4)]
    assert json.loads(out.read_text())["rows"] == expected


def test_works_measured_by_other_code_do_not_stay(tmp_path):
    out = tmp_path / "x.json"
    results.write(out, {"environment": {"code": "a"}, "rows": [{"work": "fae"}]})
    written = results.write(out, {"environment": {"code": "b"}, "rows": [{"work": "net"}]})
    assert json.loads(out.read_text()) == written
    assert [row["work"] for row in written["rows"]] == ["net"]


def test_the_environment_names_the_machine_and_the_code():
    found = results.environment(["cpu"])
    assert found["machine"].endswith("cores")
    assert len(found["code"]) == 64
    assert "command" not in found


def test_interleaved_takes_turns():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = stopwatch.interleaved(calls, rounds=2, seconds=10)
    assert order == ["a", "a", "b", "b"] * 2
    assert taken["a"].shape == (2, 2)


def test_summary_orders_its_numbers():
    found = stopwatch.summary(np.array([3.0, 1.0, 2.0]))
    assert (found["min"], found["median"], found["max"]) == (1.0, 2.0, 3.0)


def test_wrong_input_is_refused_in_one_sentence(tmp_path, capsys):
    out = f"--out={tmp_path}/x.json"
    for wrong, words in [
        (["--config.only=('fea',)", out], "known are fae"),
        (["--devices=0", out], "counts such as"),
        ([], "--out FILE.json"),
        (["--budget_s=0", out], "positive number of seconds"),
        (["--budget_s=5", "--devices=1,2", out], "one device count"),
        (["--nothing", out], "nothing"),
    ]:
        assert command.main(["benchmark", "--config", CONFIG, *wrong]) == 2
        assert words in capsys.readouterr().err
    config = tiny()
    config.ways = ("fastest",)
    with pytest.raises(InputError, match="fastest"):
        measure.measure(config, devices=1)


@pytest.mark.slow
def test_one_process_per_device_count(tmp_path):
    content = command.run(tiny(), tmp_path / "x.json", devices=(1, 2))
    assert [row["devices"] for row in content["rows"]] == [1, 1, 1, 2, 2, 2]
    assert json.loads((tmp_path / "x.json").read_text()) == content
    assert content["environment"]["usable_cpus"] >= 1
    assert content["ceilings"]["float32"]["gemm_gflops"] > 0
