"""One file of named parts: a zip without compression, sealed by a digest of all its bytes.

Nothing is packed, so nothing unpacks to more than lies there; parts are named in one list, so
nothing is looked for by a name in the file. The seal finds damage, not forgery: whoever writes a
file can seal it, so a digest that came another way tells whose it is.
"""

import hashlib
import io
import json
import os
import pathlib
import stat
import zipfile
from collections.abc import Collection, Mapping
from typing import Any

import jaxfair
from jaxfair.errors import InputError

__all__ = [
    "FORMAT", "LIMIT", "MANIFEST", "is_model_file", "json_part", "opened", "packed",
    "write_json_part",
]  # fmt: skip

FORMAT = 1
"""The version of all that a model file holds; another one is refused."""
MANIFEST = "manifest.json"
LIMIT = 2**31
"""Bytes of the largest file that is read."""

_MARK = b"jaxfair-model sha256:"
_HEX = 64
_REGULAR = (stat.S_IFREG | 0o644) << 16
_LISTED = 2**16
"""Bytes of the list of parts, at most; that of a model file has some hundred."""
_END = 22
"""Bytes of the end of that list without the comment (APPNOTE 4.3.16)."""
_LOCAL = 30
"""Bytes of a member's header in a zip, before its name (APPNOTE 4.3.7)."""


def packed(parts: Mapping[str, bytes]) -> bytes:
    """Returns the bytes of a model file: the same parts give the same bytes, at any time.

    The first part is the manifest: the format, the version of jaxfair, and the SHA-256 of each
    other part. The last 64 bytes are the SHA-256, in hex, of all before them.
    """
    hashes = {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}
    manifest = {"format": FORMAT, "jaxfair": jaxfair.__version__, "parts": hashes}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = _MARK + b"0" * _HEX
        for name, part in {MANIFEST: write_json_part(manifest), **parts}.items():
            member = zipfile.ZipInfo(name)  # of 1980, so that no time leaves the house
            member.external_attr = _REGULAR
            archive.writestr(member, part)
    body = file.getvalue()[:-_HEX]
    return body + hashlib.sha256(body).hexdigest().encode()


def opened(
    path: str | os.PathLike[str], needed: Collection[str], optional: Collection[str] = ()
) -> tuple[dict[str, bytes], str]:
    """Reads a model file.

    Args:
      path: the file.
      needed: names of the parts that must be there, beside the manifest.
      optional: names of those that may be.

    Returns:
      name -> bytes, the manifest among them; and the SHA-256 of the file, in hex.

    Raises:
      InputError: the file is missing, too large, none of ours, changed, of another format, or
        holds a part too many, too few, twice, packed, or that is no plain file.
    """
    content = _content(pathlib.Path(path))
    _check_end(path, content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_members(path, archive, len(content))
            parts = {name: archive.read(name) for name in archive.namelist()}
    except InputError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds
        raise InputError(
            f"{path} is no zip that can be read ({error}); export it again."
        ) from error
    manifest = json_part(path, parts, MANIFEST)
    _check_version(path, manifest)
    _check_names(path, parts.keys(), needed, optional)
    hashes = {n: hashlib.sha256(part).hexdigest() for n, part in parts.items() if n != MANIFEST}
    if manifest.get("parts") != hashes:
        raise InputError(f"{path} holds a part that its manifest does not name; export it again.")
    return parts, hashlib.sha256(content).hexdigest()


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends as model files do; nothing else of it is read."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _HEX - len(_MARK)))
        return file.read(len(_MARK)) == _MARK


def json_part(
    path: str | os.PathLike[str], parts: Mapping[str, bytes], name: str
) -> dict[str, Any]:
    """Returns a part that is a JSON object. Raises InputError where it is none, or not there."""
    if name not in parts:
        raise InputError(f"{path} lacks {name!r}; export it again.")
    try:
        found = json.loads(parts[name], parse_constant=_no_number)
        json.dumps(
            found, ensure_ascii=False, allow_nan=False
        ).encode()  # nor half a character nor inf
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {name} is no JSON; export the model again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: {name} is no JSON object; export the model again.")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON.")


def write_json_part(content: Any) -> bytes:
    """Returns indented JSON with sorted keys, as bytes; NaN is refused."""
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _content(path: pathlib.Path) -> bytes:
    """The bytes of a file whose seal holds."""
    if not path.is_file():
        raise InputError(f"There is no model file {path}; make one by jaxfair export RUN.")
    if path.stat().st_size > LIMIT:
        raise InputError(f"{path} is larger than {LIMIT / 2**30:g} GB, so it is no model file.")
    with path.open("rb") as file:
        content = file.read(4)
        if content != b"PK\x03\x04":
            raise InputError(f"{path} is no model file; make one by jaxfair export RUN.")
        content += file.read()
    body, seal = content[:-_HEX], content[-_HEX:]
    if not body.endswith(_MARK) or hashlib.sha256(body).hexdigest().encode() != seal:
        raise InputError(
            f"{path} was changed or cut off since it was written (its seal does not hold); copy or "
            "export it again."
        )
    return content


def _check_end(path: str | os.PathLike[str], content: bytes) -> None:
    """The list of parts is short: zipfile would read one of millions, however that ends."""
    end = len(content) - _HEX - len(_MARK) - _END
    long = int.from_bytes(content[end + 12 : end + 16], "little") > _LISTED
    second = content[max(end - 20, 0) :].startswith(b"PK\x06\x07")  # of zip64, which goes before it
    if end < 0 or content[end : end + 4] != b"PK\x05\x06" or long or second:
        raise InputError(f"{path} has another list of parts than a model file; export it again.")


def _check_members(path: str | os.PathLike[str], archive: zipfile.ZipFile, size: int) -> None:
    """Members are plain files, not packed, that lie one behind the other and nothing between."""
    at, names = 0, set()
    for member in archive.infolist():
        name = member.filename
        if name in names:
            raise InputError(f"{path} holds {name!r} twice; export it again.")
        if member.external_attr != _REGULAR or member.is_dir():
            raise InputError(f"{path}: {name!r} is no plain file (a link, or a folder).")
        packed_otherwise = member.compress_type or member.flag_bits or member.extra
        if packed_otherwise or member.file_size != member.compress_size:
            raise InputError(f"{path}: {name!r} is packed, and parts of a model file are not.")
        if member.header_offset != at:
            raise InputError(f"{path} holds bytes that belong to no part; export it again.")
        at += _LOCAL + len(name.encode()) + member.file_size
        names.add(name)
    if at != archive.start_dir or at > size:
        raise InputError(f"{path} holds bytes that belong to no part; export it again.")


def _check_names(
    path: str | os.PathLike[str],
    found: Collection[str],
    needed: Collection[str],
    optional: Collection[str],
) -> None:
    known = {MANIFEST, *needed, *optional}
    for name in found:
        if name not in known:
            raise InputError(f"{path} holds {name!r}, which is no part of a model file.")
    for name in needed:
        if name not in found:
            raise InputError(f"{path} lacks {name!r}; export it again.")


def _check_version(path: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} is of the format {manifest.get('format')!r} (jaxfair "
            f"{manifest.get('jaxfair')}), and jaxfair {jaxfair.__version__} reads {FORMAT}: "
            "install that version, or export the run again by this one."
        )
