"""Checks a run's privacy statement from the files alone.

What follows from other numbers is recomputed; what does not is compared with the config and
the ledger. It finds mistakes, not forgery: who rewrites every file consistently is not
caught (protocol P12).
"""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxfair.files import json_digest
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import LedgerError, read_entries
from jaxfair.privacy.plan import delta_from_public_size
from jaxfair.privacy.statement import COVERED, RELEASED, events_of, stages_of, tuning_cost
from jaxfair.schema import COUPLED, INDEPENDENT, NOT_COVERED, PHANTOM, REAL, UNITS

__all__ = ["SCHEMA", "verify_run"]

_TOLERANCE = 1e-6
_NUMBER, _COUNT, _TEXT = (int, float), int, str
SCHEMA: dict[str, Any] = {
    "accountant": dict,
    "budget": _NUMBER,
    "config_digest": _TEXT,
    "covered": _TEXT,
    "data": (PHANTOM, REAL),
    "delta": _NUMBER,
    "epsilon": _NUMBER,
    "epsilon_rdp": _NUMBER,
    "events": list,
    "expected_batch_size": _COUNT,
    "grade": ("private", "research", "none"),
    "l2_clip_norm": _NUMBER,
    "inherited": _COUNT,
    "ledger_head": _TEXT,
    "noise_multiplier": _NUMBER,
    "noise_source": ("os", "insecure_seed", None),
    "not_covered": list,
    "population": _TEXT,
    "public_size": _COUNT,
    "relation": tuple(accounting.RELATIONS),
    "released": list,
    "sampler": ("poisson",),
    "sampling_prob": _NUMBER,
    "seed": _COUNT,
    "selection": (INDEPENDENT, COUPLED),
    "stages": dict,
    "steps": _COUNT,
    "tuning": dict,
    "unit": UNITS,
}
"""Keys of privacy.json: a type, or the values that are allowed. Claims are null without privacy."""

_NULL_WITHOUT_PRIVACY = {
    "budget", "delta", "epsilon", "epsilon_rdp", "l2_clip_norm", "noise_multiplier",
}  # fmt: skip


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
    return faults + _ledger_faults(statement, workdir) + _cost_faults(statement)


def _schema_faults(statement: Mapping[str, Any]) -> list[str]:
    """Keys and types of privacy.json against SCHEMA."""
    missing, extra = SCHEMA.keys() - statement.keys(), statement.keys() - SCHEMA.keys()
    faults = [f"privacy.json lacks {name}" for name in sorted(missing)]
    faults += [f"privacy.json has {name}, which is not in its schema" for name in sorted(extra)]
    plain = statement.get("grade") == "none"
    for name in sorted(SCHEMA.keys() & statement.keys()):
        value, rule = statement[name], SCHEMA[name]
        if plain and name in _NULL_WITHOUT_PRIVACY:
            continue
        choices = isinstance(rule, tuple) and not isinstance(rule[0], type)
        fits = value in rule if choices else isinstance(value, rule) and value is not True
        if not fits:
            faults.append(f"privacy.json: {name} is {value!r}, which its schema does not allow")
    return faults


def _config_faults(
    statement: Mapping[str, Any], config: Mapping[str, Any], env: Mapping[str, Any]
) -> list[str]:
    """What the statement repeats from the config, or what follows from it."""
    dp, data, train = config["dp"], config["data"], config["train"]
    private = dp["enabled"]
    seeded = dp.get("insecure_seed") is not None
    expected = {
        "config_digest": json_digest(config),
        "seed": config["seed"],
        "expected_batch_size": train["expected_batch_size"],
        "public_size": data["public_size"],
        "sampling_prob": train["expected_batch_size"] / data["public_size"],
        "selection": "coupled" if data.get("split") == "thesis" else "independent",
        "data": PHANTOM if data.get("phantom") else statement["data"],
        "noise_source": ("insecure_seed" if seeded else "os") if private else None,
        "grade": ("research" if seeded else "private") if private else "none",
        "relation": "add_or_remove_one",
        "sampler": "poisson",
        "accountant": accounting.ACCOUNTANT | {"version": env["versions"]["dp-accounting"]},
        "released": RELEASED,
        "not_covered": NOT_COVERED,
        "covered": COVERED.format(unit=statement["unit"]),
        "unit": dp.get("unit") or statement["unit"],
        "inherited": statement["inherited"] if train.get("start_from") else 0,
    }
    if private:
        public_delta = delta_from_public_size(data["public_size"])
        expected |= {
            "budget": dp["epsilon"],
            "l2_clip_norm": dp["l2_clip_norm"],
            "delta": dp.get("delta") or public_delta,
        }
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


def _plain_faults(statement: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    claimed = [n for n in sorted(_NULL_WITHOUT_PRIVACY) if statement[n] is not None]
    faults = [f"{name} is claimed by a run without privacy" for name in claimed]
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
    entries = entries[statement["inherited"] :]
    if {entry.population for entry in entries} != {statement["population"]}:
        faults.append(f"population is {statement['population']!r}, but not in the ledger")
    paid = {n for e in entries for n in range(e.first_step, e.first_step + e.steps)}
    if paid != set(range(statement["steps"])):
        faults.append(f"steps is {statement['steps']}, but the ledger pays for {len(paid)}")
    for entry in entries:
        for name in ("sampling_prob", "noise_multiplier"):
            if getattr(entry, name) != statement[name]:
                faults.append(f"{name} is {statement[name]}, the ledger has {getattr(entry, name)}")
    return sorted(set(faults))


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
