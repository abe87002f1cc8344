"""What lies where in a run folder, and whose run it is."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxfair import files
from jaxfair.errors import InputError
from jaxfair.privacy.secret import Secret

__all__ = ["RunFolder", "code_digest"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file in it is written whole or not at all."""

    path: pathlib.Path

    config = property(lambda self: self.path / "config.json")
    env = property(lambda self: self.path / "env.json")
    privacy = property(lambda self: self.path / "privacy.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    board = property(lambda self: self.path / "tensorboard")
    ledger = property(lambda self: self.path / "ledger.jsonl")
    checkpoints = property(lambda self: self.path / "checkpoints")
    secret = property(lambda self: self.path / "secret")
    fingerprint = property(lambda self: self.path / "fingerprint.json")
    microbatch = property(lambda self: self.path / "microbatch.json")
    data_card = property(lambda self: self.path / "data_card.json")
    model = property(lambda self: self.path / "model.json")
    thresholds = property(lambda self: self.path / "thresholds.json")
    predictions = property(lambda self: self.path / "predictions.parquet")
    fairness = property(lambda self: self.path / "fairness.csv")
    maps = property(lambda self: self.path / "maps")
    report = property(lambda self: self.path / "report.md")

    def claim(self, config: Mapping[str, Any]) -> None:
        """Takes the folder for `config`; refuses one that belongs to another config."""
        self.check_claim(config)
        if not self.config.exists():
            files.write_json(self.config, config)

    def check_claim(self, config: Mapping[str, Any]) -> None:
        """Refuses a folder that belongs to another config; writes nothing."""
        if not self.config.exists():
            return
        theirs = json.loads(self.config.read_text())
        if files.json_digest(theirs) != files.json_digest(config):
            changed = "; ".join(_differences(theirs, config))
            raise InputError(
                f"{self.path} holds a run of another config ({changed}); choose another "
                "--workdir, or give the same config to resume."
            )

    def trained(self) -> bool:
        """Whether training is over: its privacy statement is the last thing it writes."""
        return self.privacy.exists()

    def finished(self) -> bool:
        """Whether the run has its report."""
        return self.trained() and self.report.exists()

    def check_fingerprint(self, secret: Secret, parts: Mapping[str, str]) -> None:
        """Refuses to replay a run whose data, code, versions or devices are not the same.

        Only an equal run replays its steps bit by bit, and only such a replay may go
        uncharged (protocol P6). What is stored are HMACs, which tell outsiders nothing.
        """
        ours = {name: secret.tag(name, value) for name, value in parts.items()}
        if not self.fingerprint.exists():
            return files.write_json(self.fingerprint, ours)
        theirs = json.loads(self.fingerprint.read_text())
        changed = [name for name in ours if theirs.get(name) != ours[name]]
        if changed:
            raise InputError(
                f"{self.path} cannot be replayed, because this changed since it began: "
                f"{', '.join(changed)}. Put it back to resume, or give --recharge to continue "
                "with a fresh secret and pay for the steps since the last checkpoint again."
            )

    def forget_secret(self) -> None:
        """Removes the secret and the fingerprint that it made."""
        shutil.rmtree(self.secret, ignore_errors=True)
        self.fingerprint.unlink(missing_ok=True)


def code_digest() -> str:
    """Returns the SHA-256 over the sources of the package."""
    root = pathlib.Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], at: str = "") -> list[str]:
    found = []
    for name in sorted({*theirs, *ours}):
        old, new = theirs.get(name), ours.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{at}{name}.")
        elif json.dumps(old) != json.dumps(new):
            found.append(f"{at}{name} was {old!r}, now {new!r}")
    return found
