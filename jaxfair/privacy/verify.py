"""Checks a run's privacy statement from the files alone.

What follows from other numbers is recomputed; what does not is compared with the config and
the ledger. It finds mistakes, not forgery: who rewrites every file consistently is not
caught (protocol P12).
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxfair.files import json_digest
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.ledger import Entry, LedgerError, read_entries
from jaxfair.privacy.public import delta_from_public_size
from jaxfair.privacy.queries import GRADIENT_SUM, Query, check_names, joint, listed
from jaxfair.privacy.release import CLAIMS, SCHEMA, fits_schema
from jaxfair.privacy.sampling import UNKNOWN, draw_bound
from jaxfair.privacy.statement import (
    COVERED,
    RELEASED,
    events_of,
    group_costs,
    not_covered,
    stages_of,
    tuning_cost,
)
from jaxfair.schema import COUPLED, INDEPENDENT, PHANTOM

__all__ = ["SCHEMA", "verify_run"]

_TOLERANCE = 1e-6


def verify_run(workdir: pathlib.Path) -> list[str]:
    """Returns what does not hold in a run folder, one sentence each; empty when all holds.

    Reads privacy.json, config.json, env.json and ledger.jsonl, and nothing else.
    """
    try:
        statement = json.loads((workdir / "privacy.json").read_text())
        config = json.loads((workdir / "config.json").read_text())
        env = json.loads((workdir / "env.json").read_text())
    except (OSError, ValueError) as error:
        return [f"a file of the run cannot be read: {error}"]
    faults = _schema_faults(statement)
    if faults:
        return faults
    faults = _config_faults(statement, config, env)
    if statement["grade"] == "none":
        return faults + _plain_faults(statement, workdir)
    ledger = _ledger_faults(statement, workdir)
    return faults + _query_faults(statement) + ledger + _cost_faults(statement)


def _schema_faults(statement: Mapping[str, Any]) -> list[str]:
    """Keys and types of privacy.json against SCHEMA."""
    missing, extra = SCHEMA.keys() - statement.keys(), statement.keys() - SCHEMA.keys()
    faults = [f"privacy.json lacks {name}" for name in sorted(missing)]
    faults += [f"privacy.json has {name}, which is not in its schema" for name in sorted(extra)]
    plain = statement.get("grade") == "none"
    for name in sorted(SCHEMA.keys() & statement.keys()):
        if not fits_schema(name, statement[name], plain=plain):
            shown = repr(statement[name])
            faults.append(f"privacy.json: {name} is {shown}, which its schema does not allow")
    return faults


def _config_faults(
    statement: Mapping[str, Any], config: Mapping[str, Any], env: Mapping[str, Any]
) -> list[str]:
    """What the statement repeats from the config, or what follows from it."""
    data, train = config["data"], config["train"]
    dp = {field.name: field.default for field in dataclasses.fields(PrivacyConfig)} | config["dp"]
    private = dp["enabled"]
    seeded = dp.get("insecure_seed") is not None
    expected = {
        "config_digest": json_digest(config),
        "seed": config["seed"],
        "expected_batch_size": train["expected_batch_size"],
        "public_size": data["public_size"],
        "sampling_prob": train["expected_batch_size"] / data["public_size"],
        "selection": _selection(data, statement),
        "data": PHANTOM if data.get("phantom") else statement["data"],
        "noise_source": ("insecure_seed" if seeded else "os") if private else None,
        "grade": ("research" if seeded else "private") if private else "none",
        "relation": "add_or_remove_one",
        "sampler": "poisson",
        "accountant": accounting.ACCOUNTANT | {"version": env["versions"]["dp-accounting"]},
        "released": RELEASED,
        "not_covered": not_covered(watched=private and not dp["padded_draws"]),
        "covered": COVERED.format(unit=statement["unit"]),
        "unit": dp.get("unit") or statement["unit"],
        "inherited": statement["inherited"] if train.get("start_from") else 0,
    }
    largest = 0.1 / data["public_size"]
    if private and not statement["delta"] <= largest * (1 + _TOLERANCE):
        return [f"delta is {statement['delta']}, above 0.1 / public_size = {largest}"]
    if private:
        public_delta = delta_from_public_size(data["public_size"])
        expected |= {
            "budget": dp["epsilon"],
            "l2_clip_norm": dp["l2_clip_norm"],
            "delta": dp.get("delta") or public_delta,
        }
    rates = [row.get("sampling_prob", 0) for row in statement["group_sampling"]]
    largest_rate = max([statement["sampling_prob"], *rates])
    padded = private and dp["padded_draws"]
    expected["padded_to"] = draw_bound(data["public_size"], largest_rate) if padded else None
    faults = [
        f"{name} is {statement[name]!r}, but the config gives {value!r}"
        for name, value in expected.items()
        if statement[name] != value
    ]
    if statement["tuning"].get("runs") != dp.get("tuning_runs", 1):
        faults.append(f"tuning is {statement['tuning']}, not the runs of the config")
    if statement["steps"] > train["steps"]:
        faults.append(f"steps is {statement['steps']}, above the config's {train['steps']}")
    return faults


def _selection(data: Mapping[str, Any], statement: Mapping[str, Any]) -> str:
    """What the rule of the split makes of the selection; without a rule, what the caller said."""
    if data.get("split") == "thesis":
        return COUPLED
    return INDEPENDENT if "split" in data else str(statement["selection"])


def _plain_faults(statement: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    claimed = [n for n in CLAIMS if statement[n] is not None]
    faults = [f"{name} is claimed by a run without privacy" for name in claimed]
    if statement["queries"] or statement["group_sampling"]:
        faults.append("a run without privacy lists noisy queries or what groups paid")
    if statement["events"] or (workdir / "ledger.jsonl").exists():
        faults.append("a run without privacy has ledger entries")
    return faults


def _ledger_faults(statement: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    """The chain of the ledger, and that it pays for the steps of the statement."""
    try:
        entries, heads = read_entries(workdir / "ledger.jsonl")
    except LedgerError as error:
        return [str(error)]
    faults = []
    if statement["ledger_head"] != heads[-1]:
        faults.append("ledger_head is not the hash of the ledger's last line")
    if statement["events"] != events_of(entries):
        faults.append("events are not those of the ledger")
    if statement["stages"] != stages_of(entries, statement["delta"]):
        faults.append(f"stages are {statement['stages']}, not those of the ledger")
    faults += _group_faults(statement, entries)
    entries = entries[statement["inherited"] :]
    if {entry.population for entry in entries} - {statement["population"]}:
        faults.append(f"population is {statement['population']!r}, but not in the ledger")
    paid = {n for e in entries for n in range(e.first_step, e.first_step + e.steps)}
    if not paid.issuperset(range(statement["steps"])):  # a crash may lose what was paid for
        faults.append(f"steps is {statement['steps']}, but the ledger pays for {len(paid)}")
    rates = [row.get("sampling_prob", 0) for row in statement["group_sampling"]]
    wanted = {
        "sampling_prob": max([statement["sampling_prob"], *rates]),
        "noise_multiplier": statement["joint_noise_multiplier"],
    }
    for entry in entries:
        for name, value in wanted.items():
            if getattr(entry, name) != value:
                faults.append(f"{name} is {value}, the ledger has {getattr(entry, name)}")
    return sorted(set(faults))


def _group_faults(statement: Mapping[str, Any], entries: list[Entry]) -> list[str]:
    """What each group pays at its own rate; the claim is the largest."""
    rows = statement["group_sampling"]
    if not rows:
        return []
    if any(row.keys() != {"group", "sampling_prob", "epsilon"} for row in rows):
        return [f"group_sampling cannot be read: {rows}"]
    rates = {row["group"]: row["sampling_prob"] for row in rows}
    if list(rates) != [UNKNOWN, *range(len(rows) - 1)]:
        return [f"group_sampling has the groups {list(rates)}"]
    faults = []
    if rates[UNKNOWN] != statement["sampling_prob"]:
        faults.append(f"units of unknown group are drawn at {rates[UNKNOWN]}, not sampling_prob")
    costs = group_costs(entries, statement["inherited"], rates, statement["delta"])
    if not _close(rows, costs):
        faults.append(f"group_sampling is {rows}, recomputed {costs}")
    if not math.isclose(max(r["epsilon"] for r in rows), statement["epsilon"], rel_tol=_TOLERANCE):
        faults.append("epsilon is not that of the group that is drawn most often")
    return faults


def _query_faults(statement: Mapping[str, Any]) -> list[str]:
    """The queries of a draw, the gradient sum first, and what they are together."""
    try:
        rows = statement["queries"]
        queries = [Query(r["name"], r["sensitivity"], r["noise_multiplier"]) for r in rows]
        gradient, *others = queries
        check_names(others)
    except (KeyError, TypeError, ValueError) as error:
        return [f"queries cannot be read: {error}"]
    faults = []
    told = (gradient.name, gradient.sensitivity, gradient.noise_multiplier)
    if told != (GRADIENT_SUM, statement["l2_clip_norm"], statement["noise_multiplier"]):
        faults.append(f"queries begin with {told}, not with the gradient sum of the statement")
    if not _close(rows, listed(queries)):
        faults.append(f"queries are {rows}, recomputed {listed(queries)}")
    together, claimed = joint(queries), statement["joint_noise_multiplier"]
    if not math.isclose(together, claimed, rel_tol=_TOLERANCE):
        faults.append(f"joint_noise_multiplier is {claimed}, recomputed {together}")
    return faults


def _close(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    """Equal names and texts, and numbers equal up to the tolerance."""

    def same(one: Any, other: Any) -> bool:
        if isinstance(one, str) or isinstance(other, str):
            return bool(one == other)
        return math.isclose(one, other, rel_tol=_TOLERANCE)

    return len(rows) == len(others) and all(
        row.keys() == other.keys() and all(same(row[n], other[n]) for n in row)
        for row, other in zip(rows, others)
    )


def _cost_faults(statement: Mapping[str, Any]) -> list[str]:
    """Recomputes what the events cost, by PLD, by RDP and, for one step, in closed form."""
    delta = statement["delta"]
    events = [
        Event(e["sampling_prob"], e["noise_multiplier"], e["steps"]) for e in statement["events"]
    ]
    costs = {
        "epsilon": accounting.epsilon(events, delta),
        "epsilon_rdp": accounting.epsilon_rdp(events, delta),
    }
    faults = [
        f"{name} is {statement[name]}, recomputed {cost}"
        for name, cost in costs.items()
        if not math.isclose(statement[name], cost, rel_tol=_TOLERANCE)
    ]
    if statement["epsilon"] > statement["budget"]:
        faults.append(f"epsilon {statement['epsilon']} is above the budget {statement['budget']}")
    tuning = tuning_cost(events, delta, statement["tuning"].get("runs"))
    if statement["tuning"] != tuning:
        faults.append(f"tuning is {statement['tuning']}, recomputed {tuning}")
    if [event.steps for event in events] == [1]:
        exact = accounting.one_step_delta(
            events[0].sampling_prob, events[0].noise_multiplier, statement["epsilon"]
        )
        if exact > delta:
            faults.append(f"one step has delta {exact} in closed form, above {delta}")
    return faults
