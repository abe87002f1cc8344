"""Files are whole or not there: an exception, a full disk or a kill leaves the old one."""

import errno
import os

import pandas as pd
import pytest

from jaxfair import files
from jaxfair.errors import InputError


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), files.whole(path) as draft:
        draft.write_text("half of")
        raise RuntimeError("killed")
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_infinity_and_nan_are_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"epsilon": float("inf")})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "[1]", '{"a": 1', b"\xff"])
def test_json_that_is_missing_damaged_or_no_object_is_one_sentence(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"a\.json cannot be read \(.*\); put it back\.$"):
        files.read_json(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_come_back_as_they_were_written(tmp_path, suffix):
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, None]})
    files.write_table(tmp_path / f"t{suffix}", table)
    read = {".parquet": pd.read_parquet, ".csv": pd.read_csv}[suffix]
    pd.testing.assert_frame_equal(read(tmp_path / f"t{suffix}"), table)


def test_a_table_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.parquet or \.csv"):
        files.write_table(tmp_path / "t.xlsx", pd.DataFrame())
