import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxfair.data import pixels, workers
from jaxfair.data.stored import Stored
from tests.data import hostile

SMALL = Stored(image_size=8)
SECONDS = 4


def lost(item, reason):
    return item, reason


def survived(names, folder, processes=2):
    """What comes of items that do what their names say, among others that do nothing."""
    items = [str(folder / f"{name}-{i}") for i, name in enumerate(names)]
    limits = workers.Limits(SECONDS, 512)
    options = {"label": "x", "progress": False, "lost": lost, "limits": limits}
    return items, list(workers.parallel(hostile.act, items, processes=processes, **options))


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


REASONS = {
    "abort": "it ended the process that read it (SIGABRT)",
    "crash": "it ended the process that read it (SIGSEGV)",
    "leave": "it ended the process that read it (status 3)",
    "hang": "it took more than 4 s (data.max_seconds)",
    "hold": "it took more than 4 s (data.max_seconds)",
    "memory": "it takes more memory than a process for decoding may have (data.max_megabytes)",
    "kill": "the process that read it was killed twice (SIGKILL), mostly for want of memory",
    "exit": "SystemExit: 4",
    "zlib": "error: Error -3",
    "token": "TokenError: ('EOF', (2, 0))",
    "later": "NotImplementedError: a new syntax",
    "odd": "RuntimeError: Unpicklable: one",
}


def test_whatever_one_item_does_costs_only_itself(tmp_path):
    names = [name for bad in REASONS for name in ("good", bad, "good", "good")]
    items, found = survived(names + ["good"] * 30, tmp_path)
    assert len(found) == len(items) > workers.FEW
    for name, item, answer in zip(names + ["good"] * 30, items, found):
        assert answer == ((item, REASONS[name]) if name in REASONS else item)


def test_an_item_never_dies_in_the_process_that_asks(tmp_path):
    items, found = survived(["abort", "good"], tmp_path, processes=1)
    assert found == [(items[0], REASONS["abort"]), items[1]]


def test_an_item_whose_process_was_killed_from_outside_is_tried_again(tmp_path):
    items, found = survived(["good", "once", "good", "once"], tmp_path)
    assert found == items


def test_a_full_disk_is_no_fault_of_an_item(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught:
        survived(["good", "full", "good"], tmp_path)
    assert caught.value.errno == 28


def test_without_a_way_to_set_aside_a_dead_process_is_an_error(tmp_path):
    items = [str(tmp_path / "good")] * 70 + [str(tmp_path / "abort-1")]
    with pytest.raises(RuntimeError, match=r"abort-1 cannot be worked on.*SIGABRT"):
        list(workers.parallel(hostile.act, items, label="x", progress=False, processes=2))


class Late:
    """A function that ends the process in which it arrives."""

    def __reduce__(self):
        return os._exit, (5,)

    def __call__(self, item):
        return item


def test_a_process_that_cannot_start_is_not_laid_to_an_item():
    with pytest.raises(RuntimeError, match=r"could not start \(exit code 5\)"):
        list(workers.parallel(Late(), ["a"], label="x", progress=False, lost=lost))


def family(pid):
    """The processes that descend from one."""
    parents = {}
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            child, rest = status.read_text().split(" (", 1)
        except OSError:
            continue
        parents[int(child)] = int(rest.rpartition(")")[2].split()[1])
    found = {pid}
    for _ in parents:
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


PARENT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from jaxfair.data import workers
from tests.data import hostile
items = [sys.argv[1] + "/good"] + [sys.argv[1] + "/hang"] * 70
for _ in workers.parallel(hostile.act, items, label="x", progress=False, processes=2):
    print("begun", flush=True)
"""


@pytest.mark.parametrize("ends_by", [signal.SIGKILL, signal.SIGINT])
def test_the_processes_end_with_their_parent(ends_by, tmp_path):
    root = pathlib.Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert parent.stdout.readline() == b"begun\n"
    children = family(parent.pid)
    assert len(children) >= 3
    parent.send_signal(ends_by)
    parent.communicate(timeout=60)
    alive = lambda: [pid for pid in children if pathlib.Path(f"/proc/{pid}").exists()]
    assert wait_until(lambda: not alive()), alive()


def test_processes_that_are_no_longer_wanted_end(tmp_path):
    items = [str(tmp_path / "good")] + [str(tmp_path / "hang")] * 70
    results = workers.parallel(hostile.act, items, label="x", progress=False, processes=2)
    before = family(os.getpid())
    assert next(results) == items[0]
    begun = family(os.getpid()) - before
    results.close()
    workers_left = lambda: [pid for pid in begun if is_worker(pid)]
    assert begun and wait_until(lambda: not workers_left())


def is_worker(pid):
    """Whether it is a child of the server that forks, and no server itself."""
    try:
        parent = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return "forkserver" in pathlib.Path(f"/proc/{parent}/cmdline").read_text()
    except OSError:
        return False
