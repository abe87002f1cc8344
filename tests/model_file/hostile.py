"""Model files from a hostile hand, which knows the format, the seal and the digests."""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import struct
import warnings
import zipfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.extend.mlir import serialize_portable_artifact

from jaxfair.model_file import container
from jaxfair.model_file.tensors import tensors_to_bytes
from tests.model_file.made import PARAMS, SIDE, made_parts

__all__ = ["DEMANDING", "HOSTILE", "resealed", "rezipped"]

PYTHON = "xla_ffi_python_cpu_callback"
DEEP = 200_000


def resealed(content: bytes) -> bytes:
    """The same bytes under a seal that holds."""
    body = content[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


def rezipped(parts, change=lambda member: member, *, manifest=None, compression=zipfile.ZIP_STORED):
    """A zip of (name, bytes) pairs with a seal; `change` of each member before it is written."""
    hashes = {name: hashlib.sha256(part).hexdigest() for name, part in dict(parts).items()}
    told = {"format": container.FORMAT, "jaxfair": "0", "parts": hashes} | (manifest or {})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.comment = b"jaxfair-model sha256:" + b"0" * 64
        for name, part in [("manifest.json", json.dumps(told).encode()), *parts]:
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o100644 << 16
            member.compress_type = compression
            archive.writestr(change(member), part)
    return resealed(file.getvalue())


def _with(**parts: bytes) -> bytes:
    """A file whose digests and seal hold, with other parts; a name has "_" for its point."""
    named = {name.replace("_", "."): part for name, part in parts.items()}
    return container.packed(made_parts() | named)


def _beside(name: str, content: bytes = b"x") -> bytes:
    return rezipped([*made_parts().items(), (name, content)])


def _bomb() -> bytes:
    parts = made_parts() | {"card.md": bytes(200 * 2**20)}
    return rezipped(list(parts.items()), compression=zipfile.ZIP_DEFLATED)


def _linked() -> bytes:
    def link(member):
        if member.filename == "card.md":
            member.external_attr = 0o120777 << 16
        return member

    parts = made_parts() | {"card.md": b"/etc/passwd"}
    return rezipped(list(parts.items()), link)


def _twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _beside("card.md", b"# Another")


def _crowd() -> bytes:
    """As many parts as somebody likes: their names alone may be gigabytes once they are read."""
    return rezipped([*made_parts().items(), *((f"{i}", b"") for i in range(1500))])


def _second_list() -> bytes:
    """A zip64 list of parts of a terabyte, which goes before the one that is short."""
    content, size = container.packed(made_parts()), 22 + len("jaxfair-model sha256:") + 64
    end = len(content) - size
    far = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 7, 7, 2**40, 0)
    found = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    return resealed(content[:end] + far + found + content[end:])


def _changed(name: str) -> bytes:
    """One byte of a part is another, and so is its checksum in the zip; the seal holds."""
    content, part = bytearray(container.packed(made_parts())), made_parts().get(name)
    if part is None:
        part = zipfile.ZipFile(io.BytesIO(bytes(content))).read(name)
    at = content.index(part) + len(part) // 2
    content[at] ^= 1
    changed = bytes(content[content.index(part[:1], at - len(part) // 2) :][: len(part)])
    old, new = (struct.pack("<I", zipfile.crc32(one)) for one in (part, changed))
    return resealed(bytes(content).replace(old, new))


def _framed(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


def _arrays(**changes: np.ndarray) -> bytes:
    arrays = {f"params/{name}": np.asarray(array) for name, array in PARAMS.items()}
    return tensors_to_bytes(arrays | {"frozen/offset": np.zeros((), np.float32)} | changes)


def _header(change: Callable[[dict], None]) -> bytes:
    """The parameters under a header that says something else of them."""
    content = _arrays()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    return _framed(json.dumps(header).encode(), content[8 + length :])


def _overlapping(header: dict) -> None:
    header["params/weight"]["data_offsets"] = [0, 4 * SIDE * SIDE]


def _lying(header: dict) -> None:
    header["params/weight"]["dtype"] = "I32"


def _vast(header: dict) -> None:
    header["params/weight"]["shape"] = [2**31, 2**31]


def _program(score: Callable, *calls: str, rows: int = 2) -> bytes:
    named = [export.DisabledSafetyCheck.custom_call(name) for name in calls]
    leaves = {f"params/{name}": array for name, array in PARAMS.items()}
    leaves["frozen/offset"] = jnp.zeros(())
    (b,) = export.symbolic_shape("b")
    given = {
        "image": jax.ShapeDtypeStruct((b, SIDE, SIDE, 1), jnp.float32),
        "group": jax.ShapeDtypeStruct((b, 1), jnp.int32),
    }
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), leaves)
    made = export.export(jax.jit(score), platforms=("cpu",), disabled_checks=named)(shapes, given)
    return bytes(made.serialize())


def _another(leaves, given):
    return {"mass": given["image"].sum(), "maps": given["image"][..., 0]}


def _calling(leaves, given):
    image = given["image"]
    kind = jax.ShapeDtypeStruct(image.shape, image.dtype)
    out = jax.ffi.ffi_call(PYTHON, kind)(image, descriptor=np.uint64(4096))
    return {"mass": out.mean((1, 2, 3)), "maps": image[..., 0]}


def _endless(leaves, given):
    image = given["image"]
    grown = jax.lax.while_loop(lambda x: x.sum() < jnp.inf, lambda x: x * 0.5, image)
    return {"mass": grown.mean((1, 2, 3)), "maps": image[..., 0]}


def _terabytes(leaves, given):
    """A sorted product of two long lists, which is held as a whole."""
    image = given["image"]
    line = image.sum() + jnp.arange(2**20, dtype=jnp.float32)
    vast = jnp.sort(line[:, None] * line[None, :], axis=0)
    return {"mass": image.mean((1, 2, 3)) + vast[5, 7], "maps": image[..., 0]}


def _years(leaves, given):
    """Products of one matrix of 36 MB with itself, time and again."""
    image = given["image"]
    square = image.sum() + jnp.ones((3000, 3000))
    for _ in range(40):
        square = square @ square
    return {"mass": image.mean((1, 2, 3)) + square[5, 7], "maps": image[..., 0]}


def _drawing(leaves, given):
    image = given["image"]
    _, drawn = jax.lax.rng_bit_generator(jnp.zeros(4, jnp.uint32), (2,), jnp.uint32)
    return {"mass": image.mean((1, 2, 3)) + drawn[0], "maps": image[..., 0]}


def _large_algebra(leaves, given):
    image = given["image"]
    square = image.sum() * jnp.ones((5000, 5000))
    return {"mass": image.mean((1, 2, 3)) + jnp.linalg.eigvalsh(square)[0], "maps": image[..., 0]}


def _beside_main(functions: str) -> bytes:
    """The honest program with more functions, as somebody writes them by hand."""
    found = export.deserialize(bytearray(made_parts()["score.stablehlo"]))
    first, rest = found.mlir_module().split("{\n", 1)
    module = serialize_portable_artifact(f"{first}{{\n{functions}\n{rest}", "1.0.0")
    return bytes(dataclasses.replace(found, mlir_module_serialized=module).serialize())


def _function(name: str, *called: str) -> str:
    calls = [
        f"%{i + 1} = func.call @{one}(%{i}) : (tensor<f32>) -> tensor<f32>"
        for i, one in enumerate(called)
    ]
    body = "\n".join(["%0 = stablehlo.negate %x : tensor<f32>", *calls])
    return (
        f"func.func private @{name}(%x: tensor<f32>) -> tensor<f32> {{\n{body}\n"
        f"func.return %{len(called)} : tensor<f32>\n}}"
    )


def _circle() -> bytes:
    return _beside_main(f"{_function('there', 'back')}\n{_function('back', 'there')}")


def _doubling() -> bytes:
    """Sixty functions, each of which calls the next one twice."""
    names = [f"f{i}" for i in range(60)]
    twice = [_function(name, after, after) for name, after in itertools.pairwise(names)]
    return _beside_main("\n".join([*twice, _function(names[-1])]))


def _long_chain() -> bytes:
    names = [f"f{i}" for i in range(2000)]
    chain = [_function(name, after) for name, after in itertools.pairwise(names)]
    return _beside_main("\n".join([*chain, _function(names[-1])]))


def _flipped(seed: int) -> bytes:
    content = bytearray(made_parts()["score.stablehlo"])
    rng = np.random.default_rng(seed)
    for place in rng.integers(0, len(content), 40):
        content[place] ^= 1 << int(rng.integers(8))
    return bytes(content)


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a zip bomb": ("is packed", _bomb),
    "a path that leads up": ("no part of a model file", lambda: _beside("../../card.md")),
    "an absolute path": ("no part of a model file", lambda: _beside("/tmp/card.md")),
    "a link": ("no plain file", _linked),
    "a part twice": ("twice", _twice),
    "parts without end": ("another list of parts", _crowd),
    "a second list of parts": ("another list of parts", _second_list),
    "cut off": ("cut off", lambda: container.packed(made_parts())[:-700]),
    "cut off and sealed again": (
        "its seal does not hold",
        lambda: resealed(container.packed(made_parts())[:-700]),
    ),
    "another version": (
        "of the format 99",
        lambda: rezipped(list(made_parts().items()), manifest={"format": 99}),
    ),
    "another magic": (
        "is no model file",
        lambda: b"\x80\x04K\x01." + container.packed(made_parts())[5:],
    ),
    "nothing": ("is no model file", lambda: b""),
    "a header longer than the file": (
        "longer than they are",
        lambda: _with(parameters_safetensors=_framed(b"{}", length=2**63 - 1)),
    ),
    "overlapping arrays": (
        "does not lie where",
        lambda: _with(parameters_safetensors=_header(_overlapping)),
    ),
    "an array that lies about its type": (
        "does not take its parameters",
        lambda: _with(parameters_safetensors=_header(_lying)),
    ),
    "an array of many exabytes": (
        "does not lie where",
        lambda: _with(parameters_safetensors=_header(_vast)),
    ),
    "arrays that are no numbers": (
        "does not take its parameters",
        lambda: _with(
            parameters_safetensors=_arrays(**{"params/weight": np.ones(SIDE * SIDE, bool)})
        ),
    ),
    "a deep header": ("no safetensors", lambda: _with(parameters_safetensors=_framed(b"[" * DEEP))),
    "deep settings": ("model.json is no JSON", lambda: _with(model_json=b'{"a":' * DEEP)),
    "a deep claim": (
        "privacy.json is no JSON",
        lambda: _with(privacy_json=b"[" * DEEP + b"]" * DEEP),
    ),
    "deep thresholds": ("evaluation.json is no JSON", lambda: _with(evaluation_json=b"[" * DEEP)),
    "a number of a million digits": (
        "privacy.json is no JSON",
        lambda: _with(privacy_json=b'{"a": ' + b"9" * 10**6 + b"}"),
    ),
    "a program of another function": (
        "gives other scores",
        lambda: _with(score_stablehlo=_program(_another)),
    ),
    "a program that calls into Python": (
        "calls xla_ffi_python_cpu_callback",
        lambda: _with(score_stablehlo=_program(_calling, PYTHON)),
    ),
    "a program that never ends": (
        "has a loop, so that it may never end",
        lambda: _with(score_stablehlo=_program(_endless)),
    ),
    "a program whose functions call each other": (
        "calls itself",
        lambda: _with(score_stablehlo=_circle()),
    ),
    "a program that doubles sixty times": (
        "more than 200,000 operations",
        lambda: _with(score_stablehlo=_doubling()),
    ),
    "a program of functions without end": (
        "operations that cannot be read",
        lambda: _with(score_stablehlo=_long_chain()),
    ),
    "a program that draws": (
        "has the operation stablehlo.rng_bit_generator",
        lambda: _with(score_stablehlo=_program(_drawing)),
    ),
    "a program of linear algebra without end": (
        "with a side of 5,000",
        lambda: _with(score_stablehlo=_program(_large_algebra, "lapack_ssyevd_ffi")),
    ),
    "a program with wrong bits": (
        "program cannot be read",
        lambda: _with(score_stablehlo=_flipped(0)),
    ),
    "a program that is a pickle": (
        "program cannot be read",
        lambda: _with(score_stablehlo=b"cos\nsystem\n(S'true'\ntR."),
    ),
} | {
    f"a changed byte in {name}": ("its manifest does not name", functools.partial(_changed, name))
    for name in ("manifest.json", *made_parts())
}
"""What is wrong -> a word of the sentence that refuses it, and how such a file is made."""

DEMANDING: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a program that asks for terabytes": (
        "asks for 4,096.0 GB of memory",
        lambda: _with(score_stablehlo=_program(_terabytes)),
    ),
    "a program that takes years": (
        "no model of jaxfair takes so many",
        lambda: _with(score_stablehlo=_program(_years)),
    ),
}
"""The same of files that are refused when a first image is there, before their program is run."""
