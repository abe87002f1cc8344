import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxfair.data import store
from jaxfair.errors import InputError


def pictures(n=7):
    return np.random.default_rng(0).integers(0, 256, (n, 6, 6, 1)).astype(np.uint8)


def write(folder, n=7):
    examples = ((f"id{i}", image) for i, image in enumerate(pictures(n)))
    return store.write_images(folder, examples, (6, 6, 1), description="made up")


def test_tfds_reads_back_what_was_written_in_order_and_without_tensorflow(tmp_path):
    assert write(tmp_path) == 7
    source = tfds.data_source(store.NAME, data_dir=tmp_path, split="all")
    assert [source[i]["image_id"] for i in range(7)] == [f"id{i}".encode() for i in range(7)]
    assert np.array_equal([source[i]["image"] for i in (6, 0, 3)], pictures()[[6, 0, 3]])
    assert "tensorflow" not in sys.modules
    info = tfds.builder_from_directory(tmp_path / store.NAME / store.VERSION).info
    assert info.splits[store.SPLIT].num_examples == 7 and info.disable_shuffling
    assert isinstance(info.features["image"], tfds.features.Tensor)


def test_the_packed_copy_equals_the_dataset(tmp_path):
    write(tmp_path)
    store.pack(tmp_path)
    packed = store.open_pixels(tmp_path)
    assert np.array_equal(packed, pictures()) and not packed.flags.writeable


def test_an_empty_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="No image could be prepared"):
        write(tmp_path, n=0)


def test_an_exception_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), store.whole_folder(tmp_path / "set") as draft:
        (draft / "half").write_text("x")
        raise RuntimeError("stop")
    assert [p.name for p in tmp_path.iterdir()] == [".set.lock"]


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(tmp_path):
    with (
        pytest.raises(InputError, match=r"No space left on device.*make room"),
        store.whole_folder(tmp_path / "set"),
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 100_000)
    assert not (tmp_path / "set").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match="cannot be written"),
        store.whole_folder(tmp_path / "file" / "set"),
    ):
        pass


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("x")
    with store.whole_folder(tmp_path / "set") as draft:
        assert draft is None
    assert (tmp_path / "set" / "mine").read_text() == "x"


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "set").mkdir()
    with store.whole_folder(tmp_path / "set") as draft:
        (draft / "a").write_text("x")
    assert (tmp_path / "set" / "a").read_text() == "x"


SLOW = """
import sys, time
from jaxfair.data import store
with store.whole_folder(sys.argv[1]) as draft:
    (draft / "half").write_text("x")
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_no_folder_and_the_next_one_clears_up(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "set")], stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"begun\n"
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert not (tmp_path / "set").exists()
    with store.whole_folder(tmp_path / "set") as draft:
        assert not list(draft.iterdir())
        (draft / "whole").write_text("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".set.lock", "set"]


def claim(path, made):
    with store.whole_folder(path) as draft:
        if draft is not None:
            time.sleep(0.3)
            (draft / "a").write_text("x")
            made.value += 1


def test_of_two_writers_one_waits_and_finds_the_work_done(tmp_path):
    context = multiprocessing.get_context("spawn")
    made = context.Value("i", 0)
    pair = [context.Process(target=claim, args=(str(tmp_path / "set"), made)) for _ in range(2)]
    for process in pair:
        process.start()
    for process in pair:
        process.join()
    assert made.value == 1 and [p.exitcode for p in pair] == [0, 0]
