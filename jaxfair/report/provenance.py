"""The end of a report: whose claim it is, in all its words, and where the numbers come from."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from jaxfair.files import slug
from jaxfair.report.content import Block, Section, Table, Text
from jaxfair.report.mitigated import cost_lines
from jaxfair.report.single import Run
from jaxfair.report.statement import caveats, price

__all__ = ["provenance"]


def provenance(runs: Sequence[Run]) -> list[Section]:
    """Returns the privacy statement of each run that has one, and where everything comes from."""
    found = [_statement(run) for run in runs if run.privacy is not None]
    return [*found, Section("Provenance", [_origin(run) for run in runs], folded=True)]


def _statement(run: Run) -> Section:
    assert run.privacy is not None
    lines = [*price(run.privacy), *caveats(run.privacy), *cost_lines(run.privacy, run.model)]
    rows = [(key, _plain(value)) for key, value in run.privacy.items()]
    table = pd.DataFrame(rows, columns=["item", "value"])
    name, title = f"{slug(run.name)}.privacy", f"privacy.json of {run.name}"
    blocks: list[Block] = [*map(Text, lines), Table(name, table, title, words=True)]
    return Section(f"{run.title()}: privacy statement", blocks, folded=True)


def _origin(run: Run) -> Text:
    """Settings and code of a run, as far as they are known."""
    told = [f"{run.title()}:", run.provenance()]
    told += [str(run.model["note"])] if "note" in run.model else []
    told += [run.at_test_time()] if run.model else []
    return Text(" ".join(told))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    return "none" if value is None else str(value)
