"""What a released evaluation says of itself, and whether a folder that holds one agrees with it.

`statement.json` of a release is to its tables what privacy.json is to a model: whom it covers, at
what price, by which mechanism, and the SHA-256 of every other file of the folder.
"""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxfair.errors import InputError
from jaxfair.files import read_json
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.histogram import EVALUATED, PARTS, SENSITIVITY, Price
from jaxfair.privacy.ledger import Ledger, read_entries
from jaxfair.privacy.queries import Query, joint, listed
from jaxfair.privacy.risk import risk
from jaxfair.privacy.seals import file_hashes
from jaxfair.privacy.statement import events_of
from jaxfair.schema import COUPLED, INDEPENDENT, PHANTOM, REAL, UNITS

__all__ = ["LEDGER", "SCHEMA_OF_RELEASE", "STATEMENT", "check_release", "statement_of_release"]

STATEMENT = "statement.json"
LEDGER = "release_ledger.jsonl"
"""The ledger of evaluation patients, beside the run's files and outside the release."""
TOLERANCE = 1e-6

_NUMBER = (int, float)

SCHEMA_OF_RELEASE: dict[str, Any] = {
    "accountant": dict, "budget": _NUMBER, "covered": str, "data": (PHANTOM, REAL),
    "delta": float, "epsilon": float, "epsilon_after_another": float, "epsilon_alone": float,
    "events": list, "files": dict, "gaussian_mu": float, "ledger_head": str,
    "minimum": _NUMBER, "noise_multiplier": float,
    "noise_source": ("os", "insecure_seed"), "not_covered": list, "population": (EVALUATED,),
    "queries": dict, "relation": ("add_or_remove_one",), "released": str,
    "selection": (INDEPENDENT, COUPLED), "training": dict, "true_positive_rates": dict,
    "unit": UNITS,
}  # fmt: skip
"""Keys of statement.json: a type, or the values that are allowed."""

COVERED = "each {unit} of the run's validation and test rows, neighbours by adding or removing one"
NOT_COVERED = [
    "training patients, but for what `training` says of the model",
    "later releases about these people: each adds up under this ledger, and then the epsilon of"
    " the last one is that of all; `epsilon_after_another` is that after one more like this",
    "releases about these people under another ledger, which nothing adds up",
    "everything of the run that is not in this folder",
]
RELEASED = "noisy histograms of scores, and what is computed from them alone"
_TRAINING = {"grade", "epsilon", "delta", "unit"}
_OF_RUN = ("data", "selection", "unit")


def statement_of_release(
    price: Price,
    ledger: Ledger,
    noise_source: str,
    run: Mapping[str, Any],
    folder: pathlib.Path,
    *,
    minimum: float,
) -> dict[str, Any]:
    """Returns statement.json of the release whose other files lie in `folder`.

    Args:
      ledger: which has paid for it; epsilon is that of all its releases together.
      run: privacy.json of the run, for unit, data, selection, and what its training costs.
      minimum: noisy patients that a group needed to be shown, from which tables follow.

    `epsilon_after_another` is what all releases cost once this one is made again on the same
    people; the ledger refuses it above its budget.
    """
    events = [entry.event for entry in ledger.entries]
    return {
        "accountant": accounting.ACCOUNTANT | {"version": accounting.library_version()},
        "budget": ledger.budget,
        "covered": COVERED.format(unit=run["unit"]),
        "data": run["data"],
        "delta": ledger.delta,
        "epsilon": ledger.epsilon(),
        "epsilon_after_another": accounting.epsilon([*events, price.event], ledger.delta),
        "epsilon_alone": accounting.epsilon([price.event], ledger.delta),
        "events": events_of(ledger.entries),
        "files": file_hashes(folder),
        "ledger_head": ledger.head,
        "minimum": minimum,
        "noise_multiplier": price.noise_multiplier,
        "noise_source": noise_source,
        "not_covered": NOT_COVERED,
        "population": EVALUATED,
        "queries": {part: listed(price.queries[part]) for part in PARTS},
        "relation": "add_or_remove_one",
        "released": RELEASED,
        "selection": run["selection"],
        "training": {name: run.get(name) for name in sorted(_TRAINING)},
        "unit": run["unit"],
    } | risk(events, ledger.delta)


def check_release(folder: pathlib.Path) -> list[str]:
    """Returns what does not hold in a folder of a release, one sentence each.

    Every number is computed again, every file compared with its digest, and a file that the
    statement does not name is a fault. The ledger of the run, and what the run says of itself, are
    compared where they lie beside.
    Whether tables follow from histograms, `publish.recomputed.check_tables` says.
    """
    try:
        statement = read_json(folder / STATEMENT)
        faults = _schema_faults(statement)
        return faults or [
            *_file_faults(statement, folder), *_cost_faults(statement), *_word_faults(statement),
            *_ledger_faults(statement, folder.parent / LEDGER),
            *_run_faults(statement, folder.parent / "privacy.json"),
        ]  # fmt: skip
    except InputError as error:
        return [str(error)]
    except (OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        return [f"a file of the release cannot be read: {error!r}"]
    except (ArithmeticError, MemoryError, RecursionError) as error:  # of numbers beyond all
        return [f"a file of the release cannot be read: {error!r}"]


def _schema_faults(statement: Mapping[str, Any]) -> list[str]:
    faults = [f"{STATEMENT} lacks {name}" for name in sorted(SCHEMA_OF_RELEASE.keys() - statement)]
    faults += [
        f"{STATEMENT} has {name}, which is not in its schema"
        for name in sorted(statement.keys() - SCHEMA_OF_RELEASE)
    ]
    return faults + [
        f"{STATEMENT}: {name} is {statement[name]!r}, which its schema does not allow"
        for name, rule in SCHEMA_OF_RELEASE.items()
        if name in statement and not _fits(statement[name], rule)
    ]


def _fits(value: Any, rule: Any) -> bool:
    if isinstance(rule, tuple) and not isinstance(rule[0], type):
        return value in rule
    if rule in (float, _NUMBER):
        return isinstance(value, rule) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, rule)


def _file_faults(statement: Mapping[str, Any], folder: pathlib.Path) -> list[str]:
    found = {name: hashed for name, hashed in file_hashes(folder).items() if name != STATEMENT}
    told = statement["files"]
    faults = [f"{name} is not named by {STATEMENT}" for name in sorted(found.keys() - told)]
    faults += [f"{name} is missing" for name in sorted(told.keys() - found)]
    return faults + [
        f"{name} was changed: it has another digest"
        for name in sorted(found.keys() & told)
        if found[name] != told[name]
    ]


def _cost_faults(statement: Mapping[str, Any]) -> list[str]:
    """Numbers that follow from others; all questions of a part are one event."""
    delta = statement["delta"]
    events = [Event(**event) for event in statement["events"]]
    own = Event(1.0, statement["noise_multiplier"], 1)
    queries = {
        part: [Query(r["name"], r["sensitivity"], r["noise_multiplier"]) for r in rows]
        for part, rows in statement["queries"].items()
    }
    told = risk(events, delta)
    wanted = {
        "epsilon": accounting.epsilon(events, delta),
        "epsilon_after_another": accounting.epsilon([*events, own], delta),
        "epsilon_alone": accounting.epsilon([own], delta),
        "noise_multiplier": min(joint(asked) for asked in queries.values()),
        "gaussian_mu": told["gaussian_mu"],
    }
    faults = [
        f"{name} is {statement[name]}, recomputed {value}"
        for name, value in wanted.items()
        if not math.isclose(statement[name], value, rel_tol=TOLERANCE)
    ]
    for name, value in (
        ("true_positive_rates", told["true_positive_rates"]),
        ("queries", {part: listed(asked) for part, asked in queries.items()}),
    ):
        if statement[name] != value:
            faults.append(f"{name} are {statement[name]}, recomputed {value}")
    if any(query.sensitivity != SENSITIVITY for asked in queries.values() for query in asked):
        faults.append(f"a question has another sensitivity than {SENSITIVITY}")
    if set(queries) != set(PARTS):
        faults.append(f"queries are of {', '.join(queries)}, not of {', '.join(PARTS)}")
    if not any(e.noise_multiplier == own.noise_multiplier for e in events):
        faults.append("no event is that of this release")
    if statement["epsilon"] > statement["budget"] * (1 + TOLERANCE):
        faults.append(f"epsilon {statement['epsilon']} is above the budget {statement['budget']}")
    return faults


def _word_faults(statement: Mapping[str, Any]) -> list[str]:
    wanted = {
        "covered": COVERED.format(unit=statement["unit"]),
        "not_covered": NOT_COVERED,
        "released": RELEASED,
    }
    accountant = {k: v for k, v in statement["accountant"].items() if k != "version"}
    faults = [f"{name} is not what a release says" for name in wanted
              if statement[name] != wanted[name]]  # fmt: skip
    if accountant != accounting.ACCOUNTANT:
        faults.append(f"accountant is {statement['accountant']}")
    return faults + ([] if set(statement["training"]) == _TRAINING else ["training lacks a word"])


def _ledger_faults(statement: Mapping[str, Any], path: pathlib.Path) -> list[str]:
    """The ledger may have grown since; it has to begin with what this release paid."""
    if not path.is_file():
        return []
    entries, heads = read_entries(path)
    if statement["ledger_head"] not in heads:
        return ["ledger_head is not in the ledger beside the release"]
    paid = entries[: heads.index(statement["ledger_head"])]
    if statement["events"] == events_of(paid) and {e.population for e in paid} <= {EVALUATED}:
        return []
    return ["events are not those of the ledger beside the release"]


def _run_faults(statement: Mapping[str, Any], path: pathlib.Path) -> list[str]:
    """What a release says of the run it is of."""
    if not path.is_file():
        return []
    run = read_json(path)
    told = {name: statement[name] for name in _OF_RUN} | dict(statement["training"])
    return [
        f"{name} is {told[name]!r}, and {path.name} of the run beside says {run.get(name)!r}"
        for name in told
        if told[name] != run.get(name)
    ]
