"""What lies where in a run folder, and whose run it is."""

import contextlib
import fcntl
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from jaxfair import files
from jaxfair.errors import InputError
from jaxfair.privacy.secret import forget_secret

__all__ = ["RunFolder"]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. Every file in it is written whole or not at all."""

    path: pathlib.Path

    config = property(lambda self: self.path / "config.json")
    population = property(lambda self: self.path / "population.json")
    env = property(lambda self: self.path / "env.json")
    privacy = property(lambda self: self.path / "privacy.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    board = property(lambda self: self.path / "tensorboard")
    ledger = property(lambda self: self.path / "ledger.jsonl")
    checkpoints = property(lambda self: self.path / "checkpoints")
    secret = property(lambda self: self.path / "secret")
    fingerprint = property(lambda self: self.path / "fingerprint.json")
    lock = property(lambda self: self.path / "lock")
    microbatch = property(lambda self: self.path / "microbatch.json")
    data_card = property(lambda self: self.path / "data_card.json")
    model = property(lambda self: self.path / "model.json")
    thresholds = property(lambda self: self.path / "thresholds.json")
    predictions = property(lambda self: self.path / "predictions.parquet")
    fairness = property(lambda self: self.path / "fairness.csv")
    scales = property(lambda self: self.path / "scales.json")
    calibrated = property(lambda self: self.path / "calibrated.parquet")
    leakage = property(lambda self: self.path / "leakage.csv")
    maps = property(lambda self: self.path / "maps")
    site = property(lambda self: self.path / "site.json")
    before = property(lambda self: self.path / "before.json")
    report = property(lambda self: self.path / "report.md")

    def checkpoints_of(self, stage: int) -> pathlib.Path:
        """Returns where the checkpoints of a stage lie; those of the first in `checkpoints`."""
        return self.path / f"checkpoints-{stage}" if stage else self.checkpoints

    def claim(self, config: Mapping[str, Any]) -> None:
        """Takes the folder for `config`; refuses one that belongs to another config."""
        self.check_claim(config)
        if not self.config.exists():
            files.write_json(self.config, config)

    def check_claim(self, config: Mapping[str, Any]) -> None:
        """Refuses a folder that belongs to another config; writes nothing."""
        if not self.config.exists():
            return
        theirs = files.read_json(self.config)
        if files.json_digest(theirs) != files.json_digest(config):
            changed = "; ".join(_differences(theirs, config))
            raise InputError(
                f"{self.path} holds a run of another config ({changed}); choose another "
                "--workdir, or give the same config to resume."
            )

    def claim_population(self, facts: Mapping[str, str]) -> None:
        """Takes the folder for the people that `facts` name; refuses one of other people."""
        if not self.population.exists():
            files.write_json(self.population, facts)
        changed = "; ".join(_differences(files.read_json(self.population), facts))
        if changed:
            raise InputError(
                f"{self.path} holds a run that says otherwise whom it covers ({changed}); a "
                "claim holds for all steps of a run: give the same to resume, or choose another "
                "folder."
            )

    def trained(self) -> bool:
        """Whether training is over: its privacy statement is the last thing it writes."""
        return self.privacy.exists()

    def finished(self) -> bool:
        """Whether the run has its report."""
        return self.trained() and self.report.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, which is there, for one writer.

        The lock of a process that died is gone with it, whatever it left behind.

        Raises InputError if another process, or another Trainer of this one, is at work here,
        and where the file system gives no locks.
        """
        with open(self.lock, "w") as file:
            self._take(file, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def read(self) -> Iterator[None]:
        """Holds the folder against writers and changes nothing; others may read it too.

        Raises InputError as `locked`.
        """
        if not self.lock.exists():  # nobody has ever worked here
            yield
            return
        with open(self.lock) as file:
            self._take(file, fcntl.LOCK_SH)
            yield

    def _take(self, file: IO[str], kind: int) -> None:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"Another process is training or evaluating in {self.path}; wait for it, "
                "stop it, or choose another --workdir."
            ) from error
        except OSError as error:
            raise InputError(
                f"{self.path} lies on a file system without locks ({error.strerror}), where "
                "two processes could spoil one run; choose another --workdir."
            ) from error

    def level_times(self) -> None:
        """Gives everything in the folder one time, that of this call.

        When each file was written tells how fast a run was, and so, in part, of how many; a copy
        with its times (`cp -p`, an archive) would carry that out.
        """
        now = time.time()
        for path in [*self.path.rglob("*"), self.path]:
            with contextlib.suppress(OSError):  # somebody else's file
                os.utime(path, (now, now), follow_symlinks=False)

    def forget_secret(self) -> None:
        """Removes the secret and the fingerprint that it made.

        Raises InputError where the secret cannot be removed.
        """
        try:
            forget_secret(self.secret)
        except OSError as error:
            raise InputError(
                f"The secret in {self.secret} cannot be removed ({error}), and nothing may be "
                "drawn from it again: remove it by hand."
            ) from error
        self.fingerprint.unlink(missing_ok=True)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], at: str = "") -> list[str]:
    found = []
    for name in sorted({*theirs, *ours}):
        old, new = theirs.get(name), ours.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{at}{name}.")
        elif json.dumps(old) != json.dumps(new):
            found.append(f"{at}{name} was {old!r}, now {new!r}")
    return found
