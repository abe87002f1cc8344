"""Damage that a file may have: bytes, pieces, and the fields that say how large it is."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable

import pydicom

__all__ = ["mutated"]

EXTREME = (0, 1, 2, 7, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
TAGS = {
    "Rows": EXTREME[:9],
    "Columns": EXTREME[:9],
    "BitsAllocated": (0, 1, 8, 12, 16, 32, 64),
    "BitsStored": (0, 1, 8, 12, 16, 17, 32),
    "HighBit": (0, 7, 11, 15, 31),
    "SamplesPerPixel": (0, 1, 2, 3, 4, 255),
    "PixelRepresentation": (0, 1, 2),
    "PlanarConfiguration": (0, 1, 2),
    "NumberOfFrames": (0, 1, 2, 65535, 2**31 - 1, -1),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "YBR_FULL", "YBR_RCT", "YBR_FULL_422",
                                  "PALETTE COLOR", "NONE", ""),
    "WindowWidth": (0, -1, 1, 1e-30, 1e30),
    "WindowCenter": (0, -1e30, 1e30),
    "RescaleSlope": (0, -1, 1e-30, 1e30),
    "RescaleIntercept": (0, -1e30, 1e30),
    "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "OTHER"),
}  # fmt: skip
SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.5", "1.2.3",
)  # fmt: skip
CELLS = (
    "",
    "nan",
    "1e999",
    "-1",
    '"',
    ",",
    ";",
    "\t",
    "\x00",
    "p0 ",
    "ÿ",
    "../../x",
    "=1+1",
    "9" * 400,
)


def mutated(name: str, content: bytes, rng: random.Random) -> bytes:
    """Returns damaged content: by the format's own fields in half of the cases, else anyhow."""
    inside = INSIDE.get(name.rpartition(".")[2])
    if inside is not None and rng.random() < 0.5:
        try:
            content = inside(content, rng)
        except Exception:  # a public file that is broken already
            content = _flip(content, rng)
    for _ in range(rng.choice((0, 1, 1, 3)) if inside else rng.choice((1, 1, 3))):
        content = rng.choice(ANYHOW)(content, rng)
    return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    reach = rng.choice((400, len(changed), len(changed)))
    for _ in range(rng.choice((1, 1, 4, 40)) if changed else 0):
        changed[rng.randrange(min(reach, len(changed)))] = rng.randrange(256)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _pieces(content: bytes, rng: random.Random) -> list[bytes]:
    a, b, c = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    return [content[:a], content[a:b], content[b:c], content[c:]]


def _swap(content: bytes, rng: random.Random) -> bytes:
    a, b, c, d = _pieces(content, rng)
    return a + c + b + d


def _repeat(content: bytes, rng: random.Random) -> bytes:
    a, b, c, d = _pieces(content, rng)
    return a + b[:4096] * rng.choice((2, 20)) + c + d


def _drop(content: bytes, rng: random.Random) -> bytes:
    a, b, _, d = _pieces(content, rng)
    return a + b + d


def _insert(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.randbytes(rng.choice((1, 2, 16, 1000))) + content[at:]


def _number(content: bytes, rng: random.Random) -> bytes:
    """Writes an extreme number over some field near the start, in either byte order."""
    kind = rng.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(kind)
    at = rng.randrange(max(1, min(len(content), rng.choice((64, 700, 10**6))) - size))
    value = rng.choice(EXTREME) % 256**size
    return content[:at] + struct.pack(kind, value) + content[at + size :]


def _dicom(content: bytes, rng: random.Random) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    for name in rng.sample(sorted(TAGS), rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.2 and name in dataset:
            del dataset[name]
        else:
            setattr(dataset, name, rng.choice(TAGS[name]))
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset)
    if rng.random() < 0.2:  # another syntax than that of the pixels, the same length of header
        old, new = dataset.file_meta.TransferSyntaxUID.encode(), rng.choice(SYNTAXES).encode()
        return file.getvalue().replace(old, new[: len(old)].ljust(len(old), b"\0"), 1)
    return file.getvalue()


def _png(content: bytes, rng: random.Random) -> bytes:
    """Changes the size, depth or kind in IHDR, or the data, and mends the checksum."""
    at, chunks = 8, []
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append([content[at + 4 : at + 8], bytearray(content[at + 8 : at + 8 + size])])
        at += 12 + size
    chosen = rng.choice((chunks[0], rng.choice(chunks)))[1]
    for _ in range(rng.choice((1, 2))):
        if chosen:
            chosen[rng.randrange(len(chosen))] = rng.choice((0, 1, 3, 4, 16, 255))
    if rng.random() < 0.2:
        rng.shuffle(chunks)
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
             for n, d in chunks)  # fmt: skip
    return content[:8] + b"".join(parts)


def _jpeg(content: bytes, rng: random.Random) -> bytes:
    """Changes height, width or components of the frame header."""
    found = [content.find(bytes([0xFF, m])) for m in (0xC0, 0xC1, 0xC2)]
    at = max(found) + rng.choice((4, 5, 7, 9))
    return content[:at] + struct.pack(">H", rng.choice(EXTREME) % 65536) + content[at + 2 :]


def _nifti(content: bytes, rng: random.Random) -> bytes:
    """Changes dimensions (40-55), type (70-73), voxels (76-107), offset and scale (108-119), or
    what says how it lies (252-327)."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 3))):
        if rng.random() < 0.5:
            value = rng.choice((0, 1, 2, 4, 8, 16, 64, 255, 32767, -1))
            struct.pack_into(
                "<h", changed, rng.choice((*range(40, 56, 2), 70, 72, 252, 254)), value
            )
        else:
            value = rng.choice((0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), 1e6))
            struct.pack_into(
                "<f", changed, rng.choice((*range(76, 120, 4), *range(256, 328, 4))), value
            )
    return bytes(changed)


def _gz(content: bytes, rng: random.Random) -> bytes:
    return gzip.compress(_nifti(gzip.decompress(content), rng), mtime=0)


def _npy(content: bytes, rng: random.Random) -> bytes:
    """Changes the text of the header: shape, type, order."""
    swaps = ((b"(", b"(99999999, "), (b"48", b"2147483647"), (b"40", b"0"), (b"u2", b"O8"),
             (b"u2", b"f8"), (b"u2", b"V9"), (b"False", b"True "), (b"(", b"-("), (b"i2", b"c16"),
             (b"'", b'"'), (b"}", b""), (b"shape", b"shabe"))  # fmt: skip
    old, new = rng.choice(swaps)
    head, rest = content[:128], content[128:]
    return head.replace(old, new, 1)[:128].ljust(128) + rest


def _npz(content: bytes, rng: random.Random) -> bytes:
    """Damages a member and packs it again, with a right checksum."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(sorted(members))
    members[chosen] = rng.choice((_npy, _flip, _cut, _insert))(members[chosen], rng)
    if rng.random() < 0.1:
        members["more.npy"] = members[chosen]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as out:
        for name, member in members.items():
            out.writestr(zipfile.ZipInfo(name), member, out.compression)
    return file.getvalue()


def _csv(content: bytes, rng: random.Random) -> bytes:
    rows = [row.split(",") for row in content.decode().splitlines()]
    for _ in range(rng.choice((1, 2, 8))):
        row = rng.choice(rows)
        row[rng.randrange(len(row))] = rng.choice(CELLS)
    text = "\n".join(rng.choice((",", ",", ";", "\t")).join(row) for row in rows)
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-16", "latin-1")), "replace")


ANYHOW: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _flip, _flip, _number, _number, _cut, _swap, _repeat, _drop, _insert,
)  # fmt: skip
INSIDE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "dcm": _dicom, "png": _png, "jpg": _jpeg, "nii": _nifti, "gz": _gz, "npy": _npy, "npz": _npz,
    "csv": _csv,
}  # fmt: skip
