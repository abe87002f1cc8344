"""The run's secret, and every random stream derived from it.

One 256-bit secret keys the sampler, the noise and the per-example randomness. Streams are
named: `derive(purpose, *numbers)` is HKDF-Expand (RFC 5869, SHA-256) with the purpose and
the numbers in its info field, so no two purposes, steps or leaves share key material.
"""

import hashlib
import hmac
import os
import pathlib
import secrets
import shutil
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Secret",
    "create_secret",
    "forget_secret",
    "insecure_secret",
    "load_secret",
    "os_secret",
]

_FILE = "secret.key"
_BYTES = 32


@dataclass(frozen=True)
class Secret:
    """256 secret bits. `repr` never shows them.

    Attributes:
      material: 32 bytes.
      source: "os" for the operating system's generator, "insecure_seed" for a research seed.
      identity: where the secret lives (folder and inode), part of the run's fingerprint, so
        that a copied folder does not pass for the original.
    """

    material: bytes = field(repr=False)
    source: Literal["os", "insecure_seed"]
    identity: str = ""

    def __post_init__(self) -> None:
        if len(self.material) != _BYTES:
            raise ValueError(f"A secret has {_BYTES} bytes, got {len(self.material)}.")

    def derive(self, purpose: str, *numbers: int, length: int = 32) -> bytes:
        """Returns `length` bytes for this purpose and these numbers (HKDF-Expand, RFC 5869).

        Guarantees: the same arguments give the same bytes; distinct arguments give bytes
        that nobody without the secret can tell from independent uniform ones.
        """
        info = b"\x00".join([purpose.encode(), *(b"%d" % number for number in numbers)])
        return hkdf_expand(self.material, b"jaxfair\x00" + info, length)

    def tag(self, name: str, value: str) -> str:
        """Returns HMAC(secret, name, value) in hex: comparable by the holder, silent to others."""
        return hmac.new(self.material, f"tag\x00{name}\x00{value}".encode(), "sha256").hexdigest()


def hkdf_expand(key: bytes, info: bytes, length: int) -> bytes:
    """Returns HKDF-Expand-SHA256 of RFC 5869 section 2.3; `length` at most 8160 bytes."""
    if not 0 < length <= 255 * 32:
        raise ValueError(f"HKDF-Expand gives 1 to {255 * 32} bytes, asked for {length}.")
    blocks, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(key, block + info + bytes([counter]), hashlib.sha256).digest()
        blocks += block
    return blocks[:length]


def create_secret(folder: str | os.PathLike[str]) -> Secret:
    """Draws 256 bits from the operating system and keeps them in `folder`, mode 0600.

    Raises FileExistsError if `folder` holds a secret: a secret is never overwritten.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return load_secret(folder)


def load_secret(folder: str | os.PathLike[str]) -> Secret:
    """Reads the secret of `folder`. Raises FileNotFoundError where there is none."""
    path = pathlib.Path(folder) / _FILE
    identity = f"{path.resolve()}#{path.stat().st_ino}"
    return Secret(path.read_bytes(), source="os", identity=identity)


def forget_secret(folder: str | os.PathLike[str]) -> None:
    """Removes the secret of `folder`, and the folder unless it is a link to another place.

    Raises OSError where it cannot be removed: who goes on would draw from it again.
    """
    folder = pathlib.Path(folder)
    (folder / _FILE).unlink(missing_ok=True)
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)


def os_secret() -> Secret:
    """Returns 256 bits from the operating system that are kept nowhere."""
    return Secret(secrets.token_bytes(_BYTES), source="os")


def insecure_secret(seed: int) -> Secret:
    """Returns the secret of a research seed: reproducible by everyone, hence not private."""
    material = hashlib.sha256(b"jaxfair insecure seed %d" % seed).digest()
    return Secret(material, source="insecure_seed")
