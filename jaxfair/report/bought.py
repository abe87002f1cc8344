"""What a comparison begins with: what was bought, and what it cost."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxfair.privacy.meaning import members_found
from jaxfair.report.before_after import Compared, Pair
from jaxfair.report.cells import Interval, number, short
from jaxfair.report.content import Block, Text
from jaxfair.report.measured import ONE, WORST
from jaxfair.report.single import Run
from jaxfair.report.statement import of_number

__all__ = ["bought"]

_GAP = f": {WORST}, {ONE}"


class _Change(NamedTuple):
    """One number before and after; `better` is the sign of an improvement."""

    what: str
    before: float
    after: float
    change: Interval
    better: int

    @property
    def kind(self) -> str:
        """'bought', 'cost', or 'within' what chance alone may give."""
        low, high = self.change.low * self.better, self.change.high * self.better
        return "bought" if min(low, high) > 0 else "cost" if max(low, high) < 0 else "within"

    def __str__(self) -> str:
        then = f"{number(self.before)}, then {number(self.after)}"
        return f"{self.what} {then} (change {self.change})"


def bought(found: Sequence[Compared]) -> list[Block]:
    """Returns a sentence or two for each run that is set beside the first: bought, and cost."""
    afters = {pair.after.run.name: pair.after.run for one in found for pair in one.pairs}
    blocks: list[Block] = []
    for name, run in afters.items():
        pairs = [pair for one in found for pair in one.pairs if pair.after.run.name == name]
        blocks.append(Text(_sentence(pairs[0].before.run, run, pairs), strong=True))
    return blocks


def _sentence(before: Run, after: Run, pairs: Sequence[Pair]) -> str:
    told: dict[str, list[str]] = {"bought": [], "cost": [], "within": []}
    kind, words = _privacy(before, after)
    if kind:
        told[kind].append(words)
    if len(pairs) == 1:
        for change in _changes(pairs[0]):
            told[change.kind].append(change.what if change.kind == "within" else str(change))
    else:
        _count([change for pair in pairs for change in _changes(pair)], told)
    parts = [
        f"Bought: {'; '.join(told['bought']) or 'nothing that stands out of chance'}.",
        f"Cost: {'; '.join(told['cost']) or 'nothing that stands out of chance'}.",
    ]
    if told["within"]:
        parts.append(f"Within chance: {', '.join(told['within'])}.")
    return f"From {short(before.name)} to {short(after.name)}. {' '.join(parts)}"


def _privacy(before: Run, after: Run) -> tuple[str, str]:
    """What changed of the guarantee, as (kind, words)."""
    old, new = before.epsilon, after.epsilon
    if old == new:
        return "", ""
    if old is None:
        return "bought", f"a guarantee, epsilon {of_number(new)}{_meaning(after)}"
    if new is None:
        return "cost", f"the guarantee of epsilon {of_number(old)}"
    words = f"epsilon {of_number(new)} instead of {of_number(old)}"
    return ("bought" if new < old else "cost"), words


def _meaning(run: Run) -> str:
    rates = (run.privacy or {}).get("true_positive_rates")
    return f" (at most {members_found(rates)[0]} of 100 members found)" if rates else ""


def _changes(pair: Pair) -> list[_Change]:
    """The AUROC, and delta-EO at one threshold of each attribute that has it."""
    found = []
    for row in pair.costs.to_dict("records"):
        if row["what"] == "AUROC":
            found.append(_change("AUROC", row, 1))
    for row in pair.gaps.to_dict("records"):
        crossed = " x " in row["gap"]
        if row["gap"].endswith(_GAP) and np.isfinite(row["change_value"]) and not crossed:
            title = f"delta-EO by {row['gap'].removesuffix(_GAP)}"
            found.append(_change(title, row, -1))
    return [one for one in found if np.isfinite([one.change.low, one.change.high]).all()]


def _change(what: str, row: Mapping[Any, Any], better: int) -> _Change:
    change = Interval(row["change_value"], row["change_ci_low"], row["change_ci_high"])
    return _Change(what, row["before_value"], row["after_value"], change, better)


def _count(changes: Sequence[_Change], told: dict[str, list[str]]) -> None:
    """Of several labels: in how many each number is better or worse; the widest by itself."""
    table = pd.DataFrame([(c.what, c.kind, c) for c in changes], columns=["what", "kind", "all"])
    for what, part in table.groupby("what", sort=False):
        for kind, some in part.groupby("kind"):
            of = f"in {len(some)} of {len(part)} labels"
            values = [one.change.value for one in some["all"]]
            ends = f"{min(values):+.3f} to {max(values):+.3f}"
            told[str(kind)].append(f"{what} {of} ({ends})" if kind != "within" else f"{what} {of}")
