import os
import subprocess
import sys

import numpy as np
import pytest

from jaxfair.data import pixels, workers
from jaxfair.data.stored import Stored

SMALL = Stored(image_size=8)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes):
    items = [pixels.Job(f"/nowhere/{i}.dcm", SMALL) for i in range(70)]
    found = workers.parallel(
        pixels.read_square, items, label="x", progress=False, processes=processes
    )
    reasons = [header["reason"] for _, header in found]
    assert [reason.split(".")[0] for reason in reasons] == [str(i) for i in range(70)]


def test_an_error_in_a_child_arrives_and_the_pool_ends():
    jobs = [pixels.Job(1, SMALL)] * 70  # a path that is no text
    with pytest.raises(TypeError, match="int"):
        list(workers.parallel(pixels.read_square, jobs, label="x", progress=False, processes=2))


def test_the_environment_is_as_before_afterwards():
    before = dict(os.environ)
    items = [pixels.Job(f"/nowhere/{i}.dcm", SMALL) for i in range(70)]
    list(workers.parallel(pixels.read_square, items, label="x", progress=False, processes=2))
    assert dict(os.environ) == before


def test_a_script_without_a_main_guard_is_not_run_again_by_the_children(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from jaxfair.data import pixels, workers\n"
        "from jaxfair.data.stored import Stored\n"
        "print('started')\n"
        "items = [pixels.Job('/nowhere', Stored(image_size=8))] * 70\n"
        "print(len(list(workers.parallel(pixels.read_square, items, label='x',"
        " progress=False, processes=2))))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["started", "70"]


def test_the_bar_is_quiet_when_told_and_shows_the_label_when_not(capfd):
    items = [pixels.Job("/nowhere", SMALL)] * 3
    list(workers.parallel(pixels.read_square, items, label="decode", progress=False))
    assert capfd.readouterr() == ("", "")
    list(workers.parallel(pixels.read_square, items, label="decode", progress=True))
    assert "decode: 100%" in capfd.readouterr().err


def test_large_results_survive_the_journey(small_phantom):
    paths = sorted(str(path) for path in small_phantom.rglob("*.dcm"))
    jobs = [pixels.Job(path, SMALL) for path in paths * 2]
    alone = workers.parallel(pixels.read_square, jobs, label="x", progress=False, processes=1)
    pair = workers.parallel(pixels.read_square, jobs, label="x", progress=False, processes=2)
    for (one, header), (other, other_header) in zip(alone, pair, strict=True):
        assert np.array_equal(one, other) and header == other_header
