"""What the verifier compares by digest: parameters, metrics, and the run that came before."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxfair.errors import InputError
from jaxfair.privacy import seals
from jaxfair.privacy.descent import Earlier, read_earlier
from jaxfair.privacy.ledger import LedgerError, read_entries

__all__ = ["bound_faults", "earlier_faults", "earlier_of_older"]


def bound_faults(statement: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    """Returns where the last checkpoint or metrics.jsonl is not what the statement is about.

    The statement names the checkpoint by its content; its seal holds the same name and the hash of
    every file, which are computed again here. Its steps are those that the claim is over.
    """
    found = seals.digests(workdir)
    faults = []
    if statement["metrics_digest"] != found["metrics_digest"]:
        faults.append("metrics_digest is not that of metrics.jsonl, which was changed or exchanged")
    if statement["parameters_digest"] != found["parameters_digest"]:
        faults.append(
            "parameters_digest is not that of the last good checkpoint, which was changed, lost or "
            "exchanged: the claim is not about the parameters that lie here"
        )
    last = seals.newest(workdir)
    if last is not None and last[1] != statement["steps"]:
        faults.append(f"steps is {statement['steps']}, but the last checkpoint is of {last[1]}")
    return faults


def earlier_faults(
    statement: Mapping[str, Any], config: Mapping[str, Any], workdir: pathlib.Path
) -> tuple[list[str], list[str]]:
    """Returns faults and what cannot be checked, of what the statement says of earlier stages."""
    named, told = config["train"].get("start_from"), statement["earlier"]
    if (named is None) != (not told):
        said = f"the config begins with {named}" if named else "the config begins with no run"
        return [f"earlier is {told}, and {said}"], []
    if named is None:
        return [], []
    if not pathlib.Path(named, "privacy.json").is_file():
        return [], [
            f"The run that this one began with is not at {named} (as the config names it, from "
            "the folder where this command runs): its part of the claim rests on what privacy.json "
            "repeats of it."
        ]
    try:
        there = read_earlier(named)
    except InputError as error:
        return [str(error)], []
    return _compared(told, there, workdir), []


def earlier_of_older(
    statement: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Returns `earlier` for a statement that did not name it, from the folder; and what it hides.

    Where the folder is gone, the statement's own words stand for it.
    """
    named = config["train"].get("start_from")
    if named is None:
        return {}, []
    try:
        return read_earlier(named).told(), []
    except InputError as error:
        names = ("grade", "noise_source", "selection", "data")
        link = {"statement": "", "lines": statement["inherited"], "tuning_runs": 1}
        told = {name: statement[name] for name in names} | {"units": [statement["unit"]]}
        told |= {"delta": None, "not_covered": [], "chain": [link]}
        return told, [
            f"The earlier stages of this older run cannot be compared with its claim: {error}"
        ]


def _compared(told: Mapping[str, Any], there: Earlier, workdir: pathlib.Path) -> list[str]:
    if told["chain"][-1]["statement"] != there.chain[-1].statement:
        return [
            f"the run in {there.folder} is not the one that this run began with: its privacy.json "
            "has another digest"
        ]
    faults = [
        f"earlier says {name} {told.get(name)!r}, and the run in {there.folder} {value!r}"
        for name, value in there.told().items()
        if told.get(name) != value
    ]
    try:
        entries = read_entries(workdir / "ledger.jsonl")[0]
    except LedgerError:
        return faults  # which is said of the ledger itself
    if entries and tuple(entries[: len(there.entries)]) != there.entries:
        faults.append(f"the ledger does not begin with that of the run in {there.folder}")
    return faults
