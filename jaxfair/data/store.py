"""The prepared pixels: a TensorFlow Datasets dataset without TensorFlow, and a memory map of it."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxfair.errors import InputError, system_refusal
from jaxfair.files import whole

__all__ = [
    "NAME",
    "occupied",
    "open_pixels",
    "open_source",
    "pack",
    "sha256_of",
    "whole_folder",
    "write_images",
]

NAME = "jaxfair_images"
VERSION = "1.0.0"
SPLIT = "images"
"""One split in manifest order, because train, validation and test live in the manifest.

TFDS reserves the word `all` for the union of all splits, so `split="all"` reads this one.
"""
PIXELS = "pixels.npy"


def write_images(
    folder: str | os.PathLike[str],
    examples: Iterable[tuple[str, np.ndarray]],
    shape: tuple[int, ...],
    *,
    description: str,
) -> int:
    """Writes `folder`/jaxfair_images/1.0.0 so that `tfds.data_source` reads it.

    Args:
      folder: the `data_dir` of TFDS.
      examples: (image_id, uint8 image of `shape`), in the order in which they are kept.
      shape: (h, w, c) or (d, h, w, c).
      description: for people, into dataset_info.json.

    Returns:
      How many examples were written.

    Raises:
      InputError: there was no example; TFDS knows no empty split.
    """
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

    place = pathlib.Path(folder) / NAME / VERSION
    place.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
            "image_id": tfds.features.Text(),
        }
    )
    name = f"{NAME}-{SPLIT}.array_record-00000-of-00001"
    writer, sizes = array_record_module.ArrayRecordWriter(str(place / name), "group_size:1"), []
    for image_id, image in examples:
        record = features.serialize_example({"image": image, "image_id": image_id})
        sizes.append(len(record))
        writer.write(record)
    writer.close()
    if not sizes:
        raise InputError("No image could be prepared, so there is no dataset to write.")
    _write_info(tfds, features, place, sizes, description)
    return len(sizes)


def open_source(folder: str | os.PathLike[str]) -> Sequence[dict[str, Any]]:
    """The prepared images by TFDS: `source[i]` is {"image": uint8 (h, w, c), "image_id": bytes}."""
    import tensorflow_datasets as tfds

    place = pathlib.Path(folder) / NAME / VERSION
    return tfds.builder_from_directory(str(place)).as_data_source(split=SPLIT)


def pack(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Copies all images into one `pixels.npy`, (n, h, w, c) uint8, for reads by row.

    They are written one after another: a memory map would end the process (SIGBUS) on a full disk,
    where this raises OSError and leaves no file.
    """
    source = open_source(folder)
    path = pathlib.Path(folder) / PIXELS
    shape = (len(source), *source[0]["image"].shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with whole(path) as draft, open(draft, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for i in range(len(source)):
            file.write(source[i]["image"].tobytes())
    return path


def open_pixels(folder: str | os.PathLike[str]) -> np.ndarray:
    """The memory map that `pack` wrote, read-only: (n, h, w, c) uint8."""
    return np.load(pathlib.Path(folder) / PIXELS, mmap_mode="r")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def occupied(path: str | os.PathLike[str]) -> bool:
    """True for a folder that holds anything, and for a file."""
    path = pathlib.Path(path)
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path | None]:
    """Gives a draft folder that takes the place of `path` when the block ends well.

    `path` may be an empty folder; where it holds anything, the block gets None and is to look
    what it is. Two processes that want the same folder wait for each other, and the second
    gets None, because the first has finished it. SIGTERM and SIGHUP unwind the block, so that
    the draft goes; what a process left that was killed outright is removed by the next one.

    Raises:
      InputError: the place cannot be written, or the disk is full.
    """
    path = pathlib.Path(path).absolute()
    draft = path.with_name(f".{path.name}.draft")
    try:
        with _unwound(), _locked(path.with_name(f".{path.name}.lock")):
            if occupied(path):
                yield None
                return
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            yield draft
            _sync_all(draft)
            os.rename(draft, path)
    except InputError:
        raise
    except Exception as error:
        said = system_refusal(error)
        if said is None:
            raise
        raise InputError(
            f"{path} cannot be written ({said}); make room or name another place "
            "(data.prepared, or --out of prepare)."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _unwound() -> Iterator[None]:
    """Ends the block by SystemExit at a signal that would end the process on the spot."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    mine = threading.current_thread() is threading.main_thread()
    ends = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    before = {number: signal.signal(number, leave) for number in ends} if mine else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_info(
    tfds: Any, features: Any, place: pathlib.Path, sizes: list[int], description: str
) -> None:
    identity = tfds.core.DatasetIdentity(
        name=NAME, version=tfds.core.Version(VERSION), data_dir=str(place), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity, description=description, features=features, disable_shuffling=True
    )
    template = tfds.core.ShardedFileTemplate(
        dataset_name=NAME, data_dir=place, filetype_suffix="array_record", split=SPLIT
    )
    split = tfds.core.SplitInfo(
        name=SPLIT, shard_lengths=[len(sizes)], num_bytes=sum(sizes), filename_template=template
    )
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.set_file_format("array_record")
    info.write_to_directory(place)


def _sync_all(folder: pathlib.Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
