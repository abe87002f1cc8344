"""Reading a torch state dict from disk, without torch and without executing anything."""

import collections
import hashlib
import io
import json
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxfair.errors import InputError

__all__ = ["read_state_dict"]

StateDict = dict[str, np.ndarray]

_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bf16", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2",
    "BFloat16Storage": "bf16", "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "|i1", "ByteStorage": "|u1", "BoolStorage": "|b1",
}  # fmt: skip
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_state_dict(path: str | Path) -> tuple[StateDict, str]:
    """Returns ({name: array}, sha256 of the file) from a .safetensors, .pth or .pt file.

    A .pth file is a pickle: only OrderedDict, dict and tensor records are accepted, and no
    name in it is looked up outside this file, so a hostile file is refused, not run.

    Raises:
      InputError: the file is missing, of another format, damaged, or asks for anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no weights file at {path}; give the path of an existing file.")
    content = path.read_bytes()
    try:
        state = _parse(content, path.suffix)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None
    except Exception as error:
        raise InputError(
            f"{path.name} is not a readable state dict ({type(error).__name__}: {error}); "
            "download it again or save it as .safetensors."
        ) from error
    return state, hashlib.sha256(content).hexdigest()


def _parse(content: bytes, suffix: str) -> StateDict:
    if suffix == ".safetensors":
        return _parse_safetensors(content)
    if suffix not in (".pth", ".pt"):
        raise InputError(f"the suffix {suffix!r} is not .safetensors, .pth or .pt.")
    if zipfile.is_zipfile(io.BytesIO(content)):
        return _tensors_only(_parse_zip(content))
    return _tensors_only(_parse_legacy(content))


def _parse_safetensors(content: bytes) -> StateDict:
    length = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(body):
            raise InputError(f"the tensor {name!r} lies outside the file; download it again.")
        values = _decode(body[begin:end], _SAFETENSORS[entry["dtype"]])
        state[name] = values.reshape(entry["shape"])
    return state


def _decode(raw: bytes, dtype: str) -> np.ndarray:
    if dtype != "bf16":
        return np.frombuffer(raw, dtype)
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


class _Storage(NamedTuple):
    dtype: str


class _Tensor(NamedTuple):
    """A tensor record: where its values lie in a storage that may be read later."""

    storage: Any
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def materialise(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        values = storages[self.storage]
        parts = (self.offset, *self.size, *self.stride)
        if not all(isinstance(part, int) and part >= 0 for part in parts):
            raise InputError(f"a tensor record holds {parts}, which are no sizes.")
        reach = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if math.prod(self.size) and reach >= values.size:
            raise InputError("a tensor reaches beyond its storage; download the file again.")
        strides = [s * values.itemsize for s in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.size, strides)
        return np.array(view)


class _Unpickler(pickle.Unpickler):
    """Knows tensors, storages and ordered dicts, and refuses every other name."""

    def __init__(self, file: io.BufferedIOBase | io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGES:
            return _Storage(_STORAGES[name])
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Tensor(storage, offset, size, stride)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        raise InputError(
            f"the file asks for {module}.{name}, which a state dict does not need; it was "
            "refused and nothing was run; save the weights as .safetensors."
        )

    def persistent_load(self, pid: Any) -> str:
        kind, storage, key = pid[:3]
        if kind != "storage" or not isinstance(storage, _Storage):
            raise InputError(f"the file holds a reference to {kind!r}, not to a tensor.")
        self.storages[key] = storage.dtype
        return key


def _parse_zip(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        root = record.removesuffix("data.pkl")
        unpickler = _Unpickler(io.BytesIO(_stored(archive, record)))
        tree = unpickler.load()
        storages = {
            key: _decode(_stored(archive, f"{root}data/{key}"), dtype)
            for key, dtype in unpickler.storages.items()
        }
    return _materialised(tree, storages)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise InputError(f"the record {name!r} is compressed, which torch never writes.")
    return archive.read(name)


def _parse_legacy(content: bytes) -> Any:
    """torch before 1.6: three header pickles, the tree, the storage names, then raw storages."""
    file = io.BytesIO(content)
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise InputError("it is neither a zip archive nor a file that torch.save has written.")
    for _ in range(2):
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    tree = unpickler.load()
    storages = {}
    for key in _Unpickler(file).load():
        dtype = unpickler.storages[key]
        count = int.from_bytes(file.read(8), "little")
        width = 2 if dtype == "bf16" else np.dtype(dtype).itemsize
        storages[key] = _decode(file.read(count * width), dtype)
    return _materialised(tree, storages)


def _materialised(tree: Any, storages: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, _Tensor):
        return tree.materialise(storages)
    if isinstance(tree, dict):
        return {name: _materialised(value, storages) for name, value in tree.items()}
    return tree


def _tensors_only(tree: Any) -> StateDict:
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict):
        raise InputError(f"it holds a {type(tree).__name__}, not a state dict.")
    return {str(k): v for k, v in tree.items() if isinstance(v, np.ndarray)}
