"""The ledger: what was spent, written down before it is spent.

`ledger.jsonl` is append-only. Every line names the draws it pays for and carries the hash
of the line before it; it is on disk (fsync) before the steps it covers are computed. What a
crash can lose is therefore a release that was paid for, never a payment.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.search import Search

__all__ = ["BudgetExceeded", "Entry", "Ledger", "LedgerError", "read_entries"]

_GENESIS = "0" * 64


class LedgerError(InputError):
    """The ledger does not hold together, or a step would break its rules."""


class BudgetExceeded(LedgerError):
    """Paying for these draws would bring epsilon above the budget."""


@dataclass(frozen=True)
class Entry:
    """One line: the draws `first_step` to `first_step + steps - 1` of one stage.

    Attributes:
      stage: what was trained, e.g. "train"; stages compose.
      population: whose records were drawn (protocol P2), e.g. "nih-chestxray14".
      draws: public tag of the secret that keyed the draws; another secret means other draws.
      first_step: number of the first step paid for.
      steps: how many.
      sampling_prob, noise_multiplier: of each step, everything released from it together.
    """

    stage: str
    population: str
    draws: str
    first_step: int
    steps: int
    sampling_prob: float
    noise_multiplier: float

    @property
    def event(self) -> Event:
        return Event(self.sampling_prob, self.noise_multiplier, self.steps)

    def shares_draw_with(self, other: "Entry") -> bool:
        """Two entries share a draw if they cover one step under one secret, in any stage."""
        apart = (
            self.first_step >= other.first_step + other.steps
            or other.first_step >= self.first_step + self.steps
        )
        return self.draws == other.draws and not apart


class Ledger:
    """The events of a run, backed by `path`.

    Guarantees:
      * `charge` returns only when the line is on disk;
      * no two lines pay for the same draw (protocol P1), and `charge` of a draw that is
        paid for adds nothing: replaying a step bit by bit is not a second release;
      * `charge` refuses what would exceed `budget` at `delta`, whatever was charged before;
      * a line that was edited, dropped or reordered is found when the file is read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        budget: float,
        delta: float,
        writes: bool = True,
        search: Search | None = None,
    ) -> None:
        """Opens the ledger at `path`; with several hosts one of them `writes`.

        With a `search` it is the ledger of one of its runs, and every price is the search's.
        """
        self.path, self.search = pathlib.Path(path), search
        self.writes = writes
        self.budget = budget
        self.delta = delta
        if writes:
            _cut_off_half_a_line(self.path)
        self.entries, self._heads = read_entries(self.path)

    @property
    def head(self) -> str:
        """Hash of the last line; 64 zeros for an empty ledger."""
        return self._heads[-1]

    def __len__(self) -> int:
        return len(self.entries)

    def holds(self, length: int, head: str) -> bool:
        """Whether this ledger is a continuation of the one with `length` lines and `head`."""
        return 0 <= length < len(self._heads) and self._heads[length] == head

    def epsilon(self, *, accountant: str = "pld") -> float:
        """Returns what all entries cost together at `delta`, in one composition."""
        price = accounting.epsilon if accountant == "pld" else accounting.epsilon_rdp
        return price((entry.event for entry in self.entries), self.delta, search=self.search)

    def charge(self, entry: Entry) -> float:
        """Pays for the draws of `entry` and returns the epsilon spent so far.

        Draws that are paid for under the same secret, for the same use, are left out. Raises
        LedgerError if they were paid for another use, BudgetExceeded instead of overspending.
        """
        unpaid = self._unpaid(entry)
        events = [e.event for e in (*self.entries, *unpaid)]
        spent = accounting.epsilon(events, self.delta, search=self.search)
        if unpaid and not spent <= self.budget:
            last = unpaid[-1].first_step + unpaid[-1].steps - 1
            raise BudgetExceeded(
                f"Step {last} would bring epsilon to {spent:.4f}, "
                f"above the budget of {self.budget}; training stops here."
            )
        for part in unpaid:
            self._append(part)
        return spent

    def inherit(self, entries: Sequence[Entry]) -> None:
        """Writes down what earlier stages spent on the parameters that this run begins with.

        Does nothing if the ledger begins with them; raises LedgerError if it begins otherwise.
        """
        if not self.entries:
            for entry in entries:
                self._append(entry)
        if self.entries[: len(entries)] != list(entries):
            raise LedgerError(
                f"{self.path} does not begin with the {len(entries)} lines of the run that this "
                "one starts from; use a new --workdir."
            )

    def _unpaid(self, entry: Entry) -> list[Entry]:
        """The stretches of `entry` that no line has paid for."""
        parts = [(entry.first_step, entry.first_step + entry.steps)]
        for paid in self.entries:
            if not entry.shares_draw_with(paid):
                continue
            begin, end = paid.first_step, paid.first_step + paid.steps
            if replace(entry, first_step=begin, steps=paid.steps) != paid:
                raise LedgerError(
                    f"The draws of steps {begin} to {end - 1} are paid for by stage "
                    f"{paid.stage!r} or at other rates; everything that one draw releases "
                    "belongs into one event."
                )
            sides = [side for a, b in parts for side in ((a, min(b, begin)), (max(a, end), b))]
            parts = [(a, b) for a, b in sides if a < b]
        return [replace(entry, first_step=a, steps=b - a) for a, b in parts]

    def _append(self, entry: Entry) -> None:
        line, head = _line(entry, self.head)
        if self.writes:
            self._write(line)
        self.entries.append(entry)
        self._heads.append(head)

    def _write(self, line: bytes) -> None:
        new = not self.path.exists()
        with open(self.path, "ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if new:
            _sync_folder(self.path.parent)


def read_entries(path: str | os.PathLike[str]) -> tuple[list[Entry], list[str]]:
    """Reads a ledger file and checks its chain.

    Returns the entries and the head after 0, 1, ... of them. A last line that a crash left
    half-written paid for nothing yet and is passed over; any other fault raises LedgerError.
    Nothing is written: a run that is under way may be read.
    """
    path = pathlib.Path(path)
    entries: list[Entry] = []
    heads = [_GENESIS]
    for number, line in enumerate(_whole_lines(path), start=1):
        entry, head = _parsed(line, heads[-1], f"{path.name}, line {number}")
        entries.append(entry)
        heads.append(head)
    return entries, heads


def _whole_lines(path: pathlib.Path) -> Iterable[bytes]:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1].splitlines(keepends=True)


def _cut_off_half_a_line(path: pathlib.Path) -> None:
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with open(path, "r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
            os.fsync(file.fileno())


def _parsed(line: bytes, previous: str, where: str) -> tuple[Entry, str]:
    try:
        fields = json.loads(line)
        entry = Entry(**{k: v for k, v in fields.items() if k not in ("previous", "hash")})
    except (ValueError, TypeError) as error:
        raise LedgerError(f"{where} is not a ledger entry ({error}).") from error
    expected, head = _line(entry, previous)
    if line != expected:
        raise LedgerError(f"{where} does not follow from the line before it: it was changed.")
    return entry, head


def _line(entry: Entry, previous: str) -> tuple[bytes, str]:
    fields = asdict(entry) | {"previous": previous}
    head = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return json.dumps(fields | {"hash": head}, sort_keys=True).encode() + b"\n", head


def _sync_folder(folder: pathlib.Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
