"""The live view: the same values as metrics.jsonl, and what no guarantee covers is marked."""

import json
import struct

import pytest

from jaxfair import train
from jaxfair.run.log import Board, MetricsLog
from tests.small import small_config

event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")


def events(folder):
    """All events of a folder of event files."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:  # a record is its length, a checksum, the event and a checksum
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def points(folder):
    """All points of a folder of event files, as {tag: {step: value}}."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.mark.parametrize("private", [True, False])
def test_the_times_of_a_private_board_do_not_tell_how_long_a_step_took(tmp_path, private):
    board = Board(tmp_path, private=private)
    for step in (1, 2):
        board.write(step, {"epsilon": 0.5}, covered=True)
    board.close()
    shown = [event.wall_time for event in events(tmp_path) if event.summary.value]
    assert (shown == [1.0, 2.0]) == private


def test_a_board_shows_what_the_log_holds(tmp_path):
    board = Board(tmp_path / "board", private=True, after_step=0)
    log = MetricsLog(tmp_path / "metrics.jsonl", after_step=0, board=board)
    log.write(1, epsilon=0.5, params_norm=None)
    log.write(2, epsilon=0.75, params_norm=3.0)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    shown = points(tmp_path / "board")
    assert shown == {"run/epsilon": {1: 0.5, 2: 0.75}, "run/params_norm": {2: 3.0}}
    assert [line["epsilon"] for line in lines] == list(shown["run/epsilon"].values())


@pytest.mark.parametrize(("private", "group"), [(True, "not_covered_by_guarantee"), (False, "run")])
def test_what_the_guarantee_does_not_cover_is_marked(tmp_path, private, group):
    board = Board(tmp_path, private=private)
    board.write(7, {"auroc/test/anomaly/overall/all": 0.5}, covered=False)
    board.close()
    assert points(tmp_path) == {f"{group}/auroc/test/anomaly/overall/all": {7: 0.5}}


@pytest.mark.slow
def test_a_run_that_asks_for_it_has_event_files(tmp_path):
    config = small_config(tmp_path, train__tensorboard=True)
    train.run(config, tmp_path / "run", progress=False)
    shown = points(tmp_path / "run" / "tensorboard")
    assert list(shown["run/epsilon"]) == [2, 4, 6]
    assert {"run/noisy_mean_norm", "run/params_norm"} <= set(shown)
    assert "not_covered_by_guarantee/auroc/test/anomaly/overall/all" in shown
