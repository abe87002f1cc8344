"""Checks a run's privacy statement from the files alone, and changes none of them.

What follows from other numbers is recomputed; what does not is compared with the config, the
ledger, the people that the run took its folder for, and the run that it began with; parameters
and metrics are bound by digest. It finds mistakes, not forgery: who rewrites every file
consistently is not caught (protocol P12).
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxfair.errors import InputError
from jaxfair.files import json_digest, read_json
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.descent import is_told, uncovered, units_of, worst
from jaxfair.privacy.ledger import Entry, LedgerError, read_entries
from jaxfair.privacy.public import delta_from_public_size
from jaxfair.privacy.queries import GRADIENT_SUM, Query, listed
from jaxfair.privacy.release import ADDED, CLAIMS, SCHEMA, fits_schema, is_about_people
from jaxfair.privacy.risk import risk
from jaxfair.privacy.sampling import draw_bound
from jaxfair.privacy.statement import RELEASED, covered, not_covered, tuning_of
from jaxfair.privacy.sums.choice import How, clip_margin
from jaxfair.privacy.verify_asked import asked_faults, rate_faults
from jaxfair.privacy.verify_bound import bound_faults, earlier_faults, earlier_of_older
from jaxfair.privacy.verify_costs import (
    TOLERANCE,
    cost_faults,
    ledger_faults,
    query_faults,
    search_of,
)
from jaxfair.schema import COUPLED, COUPLING, COUPLING_MITIGATION, INDEPENDENT, PHANTOM

__all__ = ["SCHEMA", "Findings", "check_run", "verify_run"]


class Findings(NamedTuple):
    """What a check of a run found, one sentence each.

    Attributes:
      faults: what does not hold.
      unchecked: what could not be checked, and why; no fault.
    """

    faults: list[str]
    unchecked: list[str]


class Files(NamedTuple):
    """The files of a run that are JSON, as they were read; `people` is {} in older runs."""

    statement: dict[str, Any]
    config: dict[str, Any]
    env: dict[str, Any]
    people: dict[str, Any]


def verify_run(workdir: pathlib.Path) -> list[str]:
    """Returns what does not hold in a run folder, one sentence each; empty when all holds."""
    return check_run(workdir).faults


def check_run(workdir: pathlib.Path) -> Findings:
    """Returns what does not hold in a run folder, and what cannot be checked there.

    Reads privacy.json, config.json, env.json, population.json, ledger.jsonl, metrics.jsonl, the
    last checkpoint, and the same of the run that this one began with. Writes nothing. A file that
    is damaged is a fault of the run, whatever it holds.
    """
    try:
        return _checked(workdir)
    except InputError as error:
        return Findings([str(error)], [])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        return Findings([f"a file of the run cannot be read: {error!r}"], [])
    except (ArithmeticError, MemoryError, RecursionError) as error:  # of numbers beyond all
        return Findings([f"a file of the run cannot be read: {error!r}"], [])


def _checked(workdir: pathlib.Path) -> Findings:
    people = workdir / "population.json"
    files = Files(
        read_json(workdir / "privacy.json"),
        read_json(workdir / "config.json"),
        read_json(workdir / "env.json"),
        read_json(people) if people.is_file() else {},
    )
    files = _with_margin(_with_risk(files))
    older = not set(ADDED[2]) & files.statement.keys()
    statement, unchecked = _brought_up_to_date(files) if older else (files.statement, [])
    faults = _schema_faults(statement)
    if faults:
        return Findings(faults, unchecked)
    if people.is_file() and not is_about_people(files.people):
        return Findings([f"population.json cannot be read: {files.people}"], unchecked)
    if not files.people:
        unchecked.append(
            "population.json is not there, as in older runs: unit, population, data and "
            "selection rest on privacy.json, but for what the config says."
        )
    files = files._replace(statement=statement)
    if not older:
        faults, notes = earlier_faults(statement, files.config, workdir)
        faults, unchecked = faults + bound_faults(statement, workdir), unchecked + notes
    return Findings(faults + _own_faults(files, workdir, older=older), unchecked)


def _own_faults(files: Files, workdir: pathlib.Path, *, older: bool) -> list[str]:
    statement = files.statement
    faults = _config_faults(files, older) + rate_faults(statement, files.config)
    if statement["grade"] == "none":
        return faults + _tuning_faults(files, [], older) + _plain_faults(statement, workdir)
    try:
        entries, heads = read_entries(workdir / "ledger.jsonl")
    except LedgerError as error:
        return [*faults, str(error)]
    asked = query_faults(statement) or asked_faults(statement, files.config)
    faults += _tuning_faults(files, entries, older) + asked
    search = search_of(files.config)
    faults += ledger_faults(statement, entries, heads[-1], search)
    return faults + cost_faults(statement, search)


def _brought_up_to_date(files: Files) -> tuple[dict[str, Any], list[str]]:
    """The statement of an older run with what newer ones say beside it, and what that hides."""
    statement, sigma = files.statement, files.statement.get("noise_multiplier")
    found = {"metrics_digest": "", "padded_to": None, "parameters_digest": ""} | statement
    notes = [
        "privacy.json is of a version that did not name its parameters, its metrics and its "
        "earlier stages: that the checkpoints and metrics.jsonl here are the ones that it is "
        "about cannot be checked."
    ]
    if not set(ADDED[3]) & statement.keys():
        clip = statement.get("l2_clip_norm")
        queries = listed([Query(GRADIENT_SUM, clip, sigma)]) if clip and sigma else []
        found |= {"joint_noise_multiplier": sigma, "group_sampling": [], "queries": queries}
        notes.append(
            "privacy.json is of a version that knew no queries beside the gradient sum and no "
            "rates by group: that there were none cannot be checked."
        )
    if not {"inherited", "unit", "grade", "noise_source", "selection", "data"} <= found.keys():
        return found | {"earlier": {}}, notes
    earlier, hidden = earlier_of_older(found, files.config)
    return found | {"earlier": earlier}, notes + hidden


def _with_risk(files: Files) -> Files:
    """The files with the risk that older statements did not say, as it follows from the events."""
    statement = files.statement
    if set(ADDED[1]) & statement.keys() or "grade" not in statement:
        return files
    told: dict[str, Any] = {"gaussian_mu": None, "true_positive_rates": {}}
    if statement["grade"] != "none":
        search = search_of(files.config)
        told = risk([Event(**event) for event in statement["events"]], statement["delta"], search)
    return files._replace(statement=statement | told)


def _with_margin(files: Files) -> Files:
    """The files with the clip's format and margin, which older runs had in float32."""
    statement = files.statement
    if set(ADDED[0]) & statement.keys() or not {"grade", "sampling_prob"} <= statement.keys():
        return files
    told: dict[str, Any] = {"clip_margin": None, "precision": None}
    if statement["grade"] != "none":
        told = {"clip_margin": _margin(statement, "float32"), "precision": "float32"}
    return files._replace(statement=statement | told)


def _margin(statement: Mapping[str, Any], precision: str) -> float:
    units = draw_bound(statement["public_size"], _largest_rate(statement))
    return clip_margin(How(precision=precision), units)


def _largest_rate(statement: Mapping[str, Any]) -> float:
    rates = [row.get("sampling_prob", 0) for row in statement.get("group_sampling", ())]
    return max([statement["sampling_prob"], *rates])


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
    if not faults and not is_told(statement["earlier"]):
        faults.append(f"privacy.json: earlier cannot be read: {statement['earlier']!r}")
    return faults


def _config_faults(files: Files, older: bool) -> list[str]:
    """What the statement repeats from the config, or what follows from it."""
    statement, config, search = files.statement, files.config, search_of(files.config)
    data, train = config["data"], config["train"]
    dp = {field.name: field.default for field in dataclasses.fields(PrivacyConfig)} | config["dp"]
    private, earlier = dp["enabled"], statement["earlier"]
    padded = private and dp["padded_draws"] and not older  # older ones padded none, nor said so
    own = _own_words(files, dp)
    expected = worst(own, earlier) | {
        "config_digest": json_digest(config),
        "seed": config["seed"],
        "expected_batch_size": train["expected_batch_size"],
        "public_size": data["public_size"],
        "sampling_prob": train["expected_batch_size"] / data["public_size"],
        "relation": "add_or_remove_one",
        "sampler": "poisson",
        "accountant": accounting.accountant_of(search)
        | {"version": files.env["versions"]["dp-accounting"]},
        "released": RELEASED,
        "not_covered": uncovered(
            not_covered(watched=private and not dp["padded_draws"], searched=search is not None),
            earlier,
        ),
        "covered": covered(units_of(own, earlier)),
        "population": files.people.get("population", statement["population"]),
        "inherited": sum(link["lines"] for link in earlier.get("chain", ())) if private else 0,
    }
    largest = 0.1 / data["public_size"]
    if private and not statement["delta"] <= largest * (1 + TOLERANCE):
        return [f"delta is {statement['delta']}, above 0.1 / public_size = {largest}"]
    if private:
        deltas = (delta_from_public_size(data["public_size"]), earlier.get("delta"))
        expected |= {
            "budget": dp["epsilon"],
            "l2_clip_norm": dp["l2_clip_norm"],
            "delta": dp.get("delta") or min(d for d in deltas if d is not None),
            "precision": dp["precision"],
            "clip_margin": _margin(statement, dp["precision"]),
        }
    bound = lambda: draw_bound(data["public_size"], _largest_rate(statement))
    expected["padded_to"] = bound() if padded else None
    faults = [
        f"{name} is {statement[name]!r}, but {value!r} follows from config and stages"
        for name, value in expected.items()
        if statement[name] != value
    ]
    if statement["steps"] > train["steps"]:
        faults.append(f"steps is {statement['steps']}, above the config's {train['steps']}")
    return faults


def _own_words(files: Files, dp: Mapping[str, Any]) -> dict[str, Any]:
    """Unit, data, selection, grade and noise source of the run by itself, its stages left out."""
    told, data = files.statement | files.people, files.config["data"]
    seeded = dp.get("insecure_seed") is not None
    return {
        "unit": dp.get("unit") or told["unit"],
        "data": PHANTOM if data.get("phantom") else told["data"],
        "selection": _selection(files.config, told),
        "noise_source": ("insecure_seed" if seeded else "os") if dp["enabled"] else None,
        "grade": ("research" if seeded else "private") if dp["enabled"] else "none",
    }


def _selection(config: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    """What the rules of the config make of the selection; without a rule, what the caller said."""
    data, chosen = config["data"], config.get("mitigation") or {}
    rules = [(data, COUPLING), (chosen, COUPLING_MITIGATION)]
    if any(given.get(name) == value for given, rule in rules for name, value in rule.items()):
        return COUPLED
    return INDEPENDENT if "split" in data else str(told["selection"])


def _tuning_faults(files: Files, entries: list[Entry], older: bool) -> list[str]:
    """The runs that were compared for any stage, and what all of them cost."""
    statement, runs = files.statement, files.config["dp"].get("tuning_runs", 1)
    chain = () if older else statement["earlier"].get("chain", ())  # older: all lines, own runs
    wanted = tuning_of(entries, chain, runs, statement["delta"], search_of(files.config))
    if statement["tuning"] == wanted:
        return []
    return [f"tuning is {statement['tuning']}, and config and stages give {wanted}"]


def _plain_faults(statement: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    claimed = [n for n in CLAIMS if statement[n] is not None]
    faults = [f"{name} is claimed by a run without privacy" for name in claimed]
    if statement["true_positive_rates"]:
        faults.append("true_positive_rates is claimed by a run without privacy")
    if statement["queries"] or statement["group_sampling"]:
        faults.append("a run without privacy lists noisy queries or what groups paid")
    if statement["events"] or (workdir / "ledger.jsonl").exists():
        faults.append("a run without privacy has ledger entries")
    return faults
