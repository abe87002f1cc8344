"""Which library decompresses the pixels of a DICOM file, and what they declare before that."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from jaxfair.data import sizes

__all__ = ["ORDER", "check_packed", "declared_shape", "decompressed", "stream_shape"]

ORDER = ("pydicom", "pylibjpeg", "pillow", "gdcm")
"""By what survives damaged files: GDCM aborts the process where the others raise, so it is asked
only for syntaxes that none of the others reads. For 8-bit JPEG Pillow is the first."""

DEFLATED = DeflatedExplicitVRLittleEndian.encode()
SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG or JPEG-LS frame header (ISO 10918-1, table B.1; ISO 14495-1, C.1.1)."""


def decompressed(dataset: pydicom.Dataset) -> np.ndarray:
    """The stored pixel values of a dataset, as `pydicom.pixels.pixel_array`, YBR turned to RGB.

    The size that the header declares, and those that compressed frames declare, are checked
    first; a decoder that fails hands on to the next in ORDER, never to GDCM.

    Raises:
      InputError: a declared size above `sizes.limit`.
      Exception: whatever the last decoder raises.
    """
    sizes.check("the header", declared_shape(dataset))
    syntax = dataset.file_meta.get("TransferSyntaxUID") if "file_meta" in vars(dataset) else None
    if syntax is None or not syntax.is_encapsulated:
        return pixel_array(dataset)
    for shape in _frame_shapes(dataset):
        sizes.check("a compressed frame", shape)
    return _first_that_can(dataset, syntax)


def check_packed(path: str | os.PathLike[str]) -> None:
    """Raises InputError where a file, or what is deflated in it, is above `sizes.limit`.

    The deflated syntax packs all that stands behind the file meta group (PS3.5 A.5), whose length
    is its first element.
    """
    sizes.check_file(path)
    with open(path, "rb") as file:
        head = file.read(1024)
        if DEFLATED in head:
            file.seek(144 + int.from_bytes(head[140:144], "little"))
            sizes.check_deflated(path, file.read())


def declared_shape(dataset: pydicom.Dataset) -> tuple[int, ...]:
    """(frames, rows, columns, samples) as the header has them, 1 where it has none."""
    names = ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel")
    return tuple(int(dataset.get(name) or 1) for name in names)


def stream_shape(frame: bytes) -> tuple[int, ...] | None:
    """(rows, columns, samples) in the header of a JPEG, JPEG-LS or JPEG 2000 frame; else None.

    JPEG 2000 declares its grid in the segment SIZ, the first of a codestream (ISO 15444-1, A.5.1).

    >>> stream_shape(bytes.fromhex("ffd8 ffc0 0011 08 0040 0030 03") + b" " * 9)
    (64, 48, 3)
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 256)  # a JP2 box may stand before it
    if start >= 0 and len(frame) >= start + 42:
        grid = frame[start + 8 : start + 42]
        width, height = (int.from_bytes(grid[i : i + 4], "big") for i in (0, 4))
        return height, width, int.from_bytes(grid[32:34], "big")
    return _jpeg_shape(frame) if frame[:2] == b"\xff\xd8" else None


def _jpeg_shape(frame: bytes) -> tuple[int, ...] | None:
    """Goes from marker to marker until the frame header."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in SOF:
            height, width = (int.from_bytes(frame[i : i + 2], "big") for i in (at + 5, at + 7))
            return height, width, frame[at + 9]
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return None


def _frame_shapes(dataset: pydicom.Dataset) -> Iterator[tuple[int, ...]]:
    """Of each compressed frame that says one; a broken envelope is left to the decoder."""
    frames = declared_shape(dataset)[0]
    with contextlib.suppress(Exception):
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
            shape = stream_shape(frame)
            if shape is not None:
                yield shape


def _first_that_can(dataset: pydicom.Dataset, syntax: pydicom.uid.UID) -> np.ndarray:
    order = sorted(get_decoder(syntax).available_plugins, key=_rank)
    if syntax == JPEGBaseline8Bit:
        order.sort(key=lambda name: name != "pillow")
    sturdy = [name for name in order if name != "gdcm"] or order
    if not sturdy:
        return pixel_array(dataset)  # which says what would have to be installed
    for name in sturdy[:-1]:
        try:
            return pixel_array(dataset, decoding_plugin=name)
        except Exception:
            continue
    return pixel_array(dataset, decoding_plugin=sturdy[-1])


def _rank(plugin: str) -> int:
    return ORDER.index(plugin) if plugin in ORDER else len(ORDER)
