"""A disk that is full and a place that cannot be written are one sentence, and leave nothing."""

import contextlib
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from jaxfair import account, prepare
from jaxfair.cli import Command, execute
from jaxfair.data import store
from jaxfair.errors import InputError
from jaxfair.phantom import write
from jaxfair.report.__main__ import main as report
from jaxfair.run.checkpoint import Checkpoint, save

ROOT = pathlib.Path(__file__).resolve().parents[1]


def mounted(place, options):
    """A file system of its own at an empty folder, taken away afterwards."""
    place.mkdir()
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(line, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB."""
    yield from mounted(tmp_path / "disk", "size=2m")


@pytest.fixture
def read_only(tmp_path):
    yield from mounted(tmp_path / "disk", "ro")


@pytest.fixture
def root(tmp_path):
    config = write.PhantomConfig(n_images=24, pixels=32)
    return write.write_phantom(config, tmp_path / "root", progress=False)


@contextlib.contextmanager
def files_of_at_most(count):
    """No file of this process can grow beyond so many bytes; Python then raises EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_sentence(capsys, status, words):
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and err.count("\n") == 1, err
    assert words in err and "Traceback" not in err, err


def line(root, out):
    return ["prepare", f"--root={root}", f"--out={out}", "--image_size=256", "--noprogress"]


def test_prepare_says_so_on_a_full_disk_and_leaves_no_draft(root, small_disk, capsys):
    (small_disk / "ballast").write_bytes(bytes(1_700_000))
    status = prepare.main(line(root, small_disk / "set"))
    one_sentence(capsys, status, "set cannot be written (No space left on device")
    assert sorted(os.listdir(small_disk)) == [".set.lock", "ballast"]


def test_prepare_says_so_where_files_may_not_grow(root, tmp_path, capsys):
    with files_of_at_most(20_000):
        status = prepare.main(line(root, tmp_path / "set"))
    one_sentence(capsys, status, "set cannot be written (File too large")
    assert sorted(os.listdir(tmp_path)) == [".root.lock", ".set.lock", "root"]


def test_prepare_says_so_on_a_disk_that_is_read_only(root, read_only, capsys):
    status = prepare.main(line(root, read_only / "set"))
    one_sentence(capsys, status, "Read-only file system")


PACK = """
import sys
from jaxfair.data import store
try:
    store.pack(sys.argv[1])
except OSError as error:
    print(error.errno)
"""


def test_packing_on_a_full_disk_raises_and_leaves_no_half_file(small_disk):
    """What deflates well fits as a dataset and not as pixels; a memory map would be a SIGBUS."""
    images = ((f"i{i}", np.full((256, 256, 1), i, np.uint8)) for i in range(40))
    store.write_images(small_disk, images, (256, 256, 1), description="flat")
    done = subprocess.run(
        [sys.executable, "-c", PACK, str(small_disk)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "28\n"), done.stderr
    assert os.listdir(small_disk) == [store.NAME]


def test_packed_pixels_are_the_file_that_numpy_writes(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 1)).astype(np.uint8)
    examples = ((f"i{i}", picture) for i, picture in enumerate(pictures))
    store.write_images(tmp_path, examples, (6, 7, 1), description="made up")
    np.save(tmp_path / "plain.npy", pictures)
    assert store.pack(tmp_path).read_bytes() == (tmp_path / "plain.npy").read_bytes()


SLOW = """
import signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
from jaxfair.data import store
with store.whole_folder(sys.argv[1]) as draft:
    (draft / "half").write_text("x")
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_writer_that_is_asked_to_end_clears_up(number, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "set")], stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(number)
    child.communicate()
    assert child.returncode == 128 + number
    assert [p.name for p in tmp_path.iterdir()] == [".set.lock"]


def test_signals_are_handled_as_before_afterwards(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with store.whole_folder(tmp_path / "set"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def saving(folder):
    class Ledger:
        head = "made"

        def __len__(self):
            return 0

    weights = np.random.default_rng(0).random((600, 600))
    save(folder / "c", Checkpoint({"w": weights}, {}, 1), Ledger())


def test_a_checkpoint_on_a_full_disk_is_one_sentence(small_disk, capfd):
    status = execute(Command("train", "trains"), ["train"], lambda _: saving(small_disk) or 0)
    err = capfd.readouterr().err
    assert status == 2
    assert err.endswith(
        "train cannot write or read a file (No space left on device); make room, or name a place "
        "that may be written.\n"
    )


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(28, "No space left on device", "runs/a"), "(No space left on device: runs/a)"),
        (PermissionError(13, "Permission denied", "runs"), "(Permission denied: runs)"),
        (OSError(30, "Read-only file system"), "(Read-only file system)"),
        (RuntimeError("write() failed: No space left on device; at byte 7"), "No space left"),
    ],
)
def test_every_command_says_what_the_system_said(error, words, capsys):
    def act(_):
        raise error

    one_sentence(capsys, execute(Command("any", "does"), ["any"], act), words)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file", "a"), KeyError("a")])
def test_a_mistake_of_ours_keeps_its_traceback(error):
    def act(_):
        raise error

    with pytest.raises(type(error)):
        execute(Command("any", "does"), ["any"], act)


def test_an_error_that_a_library_wrapped_is_found():
    def act(_):
        try:
            raise OSError(122, "Disk quota exceeded")
        except OSError as error:
            raise ValueError("could not be saved") from error

    assert execute(Command("any", "does"), ["any"], act) == 2


def test_a_refusal_within_a_draft_stays_what_it_is(tmp_path):
    sentence = "File exists in the table twice"
    with pytest.raises(InputError, match=f"^{sentence}$"), store.whole_folder(tmp_path / "set"):
        raise InputError(sentence)


@pytest.fixture
def scores(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"image_id": [f"i{i}" for i in range(400)], "task": "t", "split": "test"})
    table["patient_id"], table["sex"] = table["image_id"], rng.choice(["F", "M"], 400)
    table["y_true"], table["y_score"] = rng.integers(0, 2, 400), rng.random(400)
    table.loc[:199, "split"] = "validation"
    table.to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path / "scores.csv"


@pytest.mark.parametrize("place", ["file/out", "disk/out"])
def test_a_report_that_cannot_be_written_is_one_sentence(place, scores, request, capsys):
    folder = scores.parent
    (folder / "file").write_text("")
    if place.startswith("disk"):
        request.getfixturevalue("read_only")
    status = report(["report", f"--predictions={scores}", f"--out={folder / place}",
                     "--groups=sex", "--bootstraps=20"])  # fmt: skip
    one_sentence(capsys, status, "Not a directory" if place == "file/out" else "Read-only")


def test_verifying_a_run_that_is_a_file_is_one_sentence(tmp_path, capsys):
    (tmp_path / "run").write_text("")
    status = account.main(["account", f"--verify={tmp_path / 'run'}"])
    _, err = capsys.readouterr()
    assert status in (1, 2) and "Traceback" not in err
