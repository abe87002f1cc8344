"""What has to be equal for a resumed run to replay its steps bit by bit (protocol P6).

Only such a replay may go uncharged: the same noise on other inputs would be a second release,
and one whose difference from the first holds no noise at all.
"""

import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxfair import files
from jaxfair.errors import InputError
from jaxfair.privacy.secret import Secret

__all__ = ["UNSEEN", "check", "digest_of_arrays", "digest_of_code", "digest_of_equations"]


UNSEEN = " of a callback"
"""Ends a digest of what cannot be compared."""


def check(
    path: pathlib.Path, secret: Secret, parts: Mapping[str, str], *, may_create: bool
) -> None:
    """Writes the fingerprint of a run that begins; refuses to resume one with another.

    Args:
      path: fingerprint.json of the run. It holds HMACs, which tell outsiders nothing.
      secret: of the run.
      parts: what has to be equal, by a name that a person understands.
      may_create: False where the run has begun: its fingerprint must be there.

    Raises InputError that names the parts that changed.
    """
    ours = {name: secret.tag(name, value) for name, value in parts.items()}
    if not path.exists() and may_create:
        return files.write_json(path, ours)
    theirs = files.read_json(path) if path.exists() else {}
    changed = [name for name in ours if theirs.get(name) != ours[name]]
    if changed:
        what = f"this changed since it began: {', '.join(changed)}"
        raise InputError(
            f"{path.parent} cannot be replayed, because "
            f"{what if theirs else 'its fingerprint.json is gone'}. Put it back to resume, or give "
            "--recharge to continue with a fresh secret and pay for the steps since the last "
            "checkpoint again."
        )


def digest_of_code() -> str:
    """Returns the SHA-256 over the sources of the package."""
    root = pathlib.Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def digest_of_arrays(tree: Any) -> str:
    """Returns the SHA-256 over the paths, shapes, dtypes and contents of all leaves."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(jax.device_get(leaf))
        about = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        digest.update(about.encode() + b"\0" + array.tobytes())
    return digest.hexdigest()


def digest_of_equations(fun: Callable[..., Any], *arguments: Any) -> str:
    """Returns the SHA-256 over the equations of `fun` and the constants that it closes over.

    What a callback on the host computes stands in no equation: a function with one has another
    digest each time, ending in `UNSEEN`, so that it equals nothing.

    Args:
      arguments: arrays or `jax.ShapeDtypeStruct`s; nothing is computed.
    """
    closed = jax.make_jaxpr(fun)(*arguments)
    text = re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr))  # functions print their address
    constants = digest_of_arrays(list(_constants(closed)))
    digest = hashlib.sha256(f"{text} {constants}".encode()).hexdigest()
    return f"{os.urandom(32).hex()}{UNSEEN}" if "_callback[" in text else digest


def _constants(part: Any) -> Iterator[Any]:
    """Yields the constants of closed equations and of those within, as of an inner jit."""
    yield from getattr(part, "consts", ())
    for equation in getattr(getattr(part, "jaxpr", part), "eqns", ()):
        yield from (v.val for v in equation.invars if hasattr(v, "val"))
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _constants(inner)
