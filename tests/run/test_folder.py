"""One writer a run folder: whoever comes second is told so, and nothing of the first is touched."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from jaxfair.errors import InputError
from jaxfair.run.folder import RunFolder

HOLDS = """
import pathlib, sys, time
from jaxfair.run.folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(600)
"""


def refused(folder):
    with pytest.raises(InputError) as caught, folder.locked():
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_second_process_is_told_and_a_dead_one_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        assert "Another process" in refused(RunFolder(tmp_path))
        os.kill(process.pid, signal.SIGKILL)
    with RunFolder(tmp_path).locked():
        assert "Another process" in refused(RunFolder(tmp_path)), "in one process too"


def test_a_copied_folder_has_no_writer(tmp_path):
    (tmp_path / "copy").mkdir()
    with RunFolder(tmp_path).locked():
        (tmp_path / "copy" / "lock").write_bytes((tmp_path / "lock").read_bytes())
        with RunFolder(tmp_path / "copy").locked():
            pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def fails(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fails)
    assert "without locks (No locks available)" in refused(RunFolder(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "population.json"])
def test_a_folder_whose_claim_is_damaged_is_refused_in_one_sentence(tmp_path, name):
    folder = RunFolder(tmp_path)
    (tmp_path / name).write_text('{"seed": 0, "da')
    with pytest.raises(InputError, match=rf"{name} cannot be read .* put it back\.$"):
        folder.check_claim({"seed": 0})
        folder.claim_population({"unit": "patient"})
