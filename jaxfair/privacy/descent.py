"""What a run takes over from the run that it began with: its debts, and the worst of its words.

Parameters that came out of one training and go into another carry the guarantee of both, so a
claim is as good as its weakest stage (protocol P13). Nothing here opens a data set.
"""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxfair.errors import InputError
from jaxfair.files import json_digest, read_json
from jaxfair.privacy.ledger import Entry, LedgerError, read_entries
from jaxfair.privacy.release import SCHEMA, fits_schema, is_about_people
from jaxfair.schema import COUPLED, INDEPENDENT, PHANTOM, REAL

__all__ = [
    "Earlier",
    "Link",
    "check_protected",
    "is_told",
    "read_earlier",
    "uncovered",
    "units_of",
    "worst",
]

ORDER: dict[str, tuple[str, ...]] = {
    "unit": ("patient", "lesion", "image"),
    "grade": ("private", "research", "none"),
    "noise_source": ("os", "insecure_seed"),
    "selection": (INDEPENDENT, COUPLED),
    "data": (PHANTOM, REAL),
}
"""Words of a claim from the better to the worse. An image belongs to one lesion and a lesion to
one patient, so who protects patients protects more; drawn images need no protection at all."""
_NEEDED = (*ORDER, "delta", "epsilon", "not_covered", "relation", "tuning", "ledger_head",
           "config_digest")  # fmt: skip
_TOLD = {"units", *set(ORDER) - {"unit"}, "delta", "not_covered", "chain"}


class Link(NamedTuple):
    """One earlier run of a chain.

    Attributes:
      statement: digest of its privacy.json.
      lines: of the ledger, that it added itself; 0 for a run without privacy.
      tuning_runs: how many runs were compared for it.
    """

    statement: str
    lines: int
    tuning_runs: int


@dataclass(frozen=True)
class Earlier:
    """The run that another one begins with, all that it began with itself included.

    Attributes:
      folder: where it lies, as it was named.
      entries: its ledger.
      chain: the runs, oldest first.
      units: who is protected in any of the private ones, from the better to the worse.
      grade, noise_source, selection, data: the worst of all.
      delta: the smallest of the private ones; None where none is.
      not_covered: what the guarantee of any of the private ones leaves out, in its words.
    """

    folder: str
    entries: tuple[Entry, ...]
    chain: tuple[Link, ...]
    units: tuple[str, ...]
    grade: str
    noise_source: str | None
    selection: str
    data: str
    delta: float | None
    not_covered: tuple[str, ...] = ()

    @property
    def unprotected(self) -> bool:
        """Whether parameters may hold patients whom no guarantee covers; drawn images hold none."""
        return self.grade == "none" and (self.data != PHANTOM or bool(self.units))

    def told(self) -> dict[str, Any]:
        """Returns what privacy.json of a run that begins here repeats, as `earlier`."""
        return {
            "units": list(self.units),
            "grade": self.grade,
            "noise_source": self.noise_source,
            "selection": self.selection,
            "data": self.data,
            "delta": self.delta,
            "not_covered": list(self.not_covered),
            "chain": [link._asdict() for link in self.chain],
        }


def worst(own: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the words of a claim over all stages: of each the worse one.

    Guarantees: no word is better than that of any stage that it depends on. A plain run on drawn
    images saw nobody and makes no claim, so a private run that begins there keeps its own words;
    a plain run claims nothing, and takes over what its images were.

    Args:
      own: unit, grade, noise_source, selection and data of the run by itself.
      earlier: `Earlier.told()`, or {} for a run that began with fresh parameters.

    Raises InputError for words that are neither better nor worse than others.

    >>> own = {"unit": "patient", "grade": "private", "noise_source": "os",
    ...        "selection": "independent", "data": "phantom"}
    >>> before = {"units": ["image"], "grade": "research", "noise_source": "insecure_seed",
    ...           "selection": "independent", "data": "real"}
    >>> sorted(worst(own, before).values())
    ['image', 'independent', 'insecure_seed', 'real', 'research']
    """
    if not earlier:
        return {name: own[name] for name in ORDER}
    names: Sequence[str] = tuple(ORDER)
    if own["grade"] == "none":
        names = ("selection", "data")
    elif earlier["grade"] == "none":
        names = ("data",)
    before = {**earlier, "unit": units_of(own, earlier)[-1]}
    return {name: _worse(name, own[name], before[name]) if name in names else own[name]
            for name in ORDER}  # fmt: skip


def uncovered(own: Sequence[str], earlier: Mapping[str, Any]) -> list[str]:
    """Returns what no stage's guarantee covers: the run's own sentences, then those of others."""
    return list(dict.fromkeys([*own, *earlier.get("not_covered", ())]))


def is_told(earlier: Mapping[str, Any]) -> bool:
    """Whether this is `Earlier.told()` of some run, or {}: all its names, and words that are known.

    >>> is_told({}), is_told({"grade": "private"})
    (True, False)
    """
    if not earlier:
        return True
    try:
        for name in ("grade", "selection", "data"):
            _rank(name, earlier[name])
        [_rank("unit", unit) for unit in earlier["units"]]
        links = [Link(**link) for link in earlier["chain"]]
        counts = [number for link in links for number in (link.lines, link.tuning_runs)]
        right = all(type(n) is int and n >= 0 for n in counts) and _is_delta(earlier["delta"])
        named = links and all(isinstance(link.statement, str) for link in links)
        return bool(named) and right and earlier.keys() == _TOLD
    except (InputError, KeyError, TypeError):
        return False


def units_of(own: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """Returns who is protected in any stage, from the better to the worse; arguments as `worst`."""
    found = {own["unit"], *(earlier["units"] if earlier and own["grade"] != "none" else ())}
    return sorted(found, key=lambda unit: _rank("unit", unit))


def read_earlier(folder: str | pathlib.Path, *, named: str = "train.start_from") -> Earlier:
    """Returns what a run that begins with the parameters of `folder` takes over.

    A run of before its privacy.json told of earlier stages is followed from folder to folder.

    Args:
      named: how the folder was named, for the sentence.

    Raises InputError where it is no finished run, or where something that has to be compared
    is not there or is none of the known words.
    """
    path = pathlib.Path(folder)
    if not (path / "privacy.json").is_file():
        raise InputError(f"{named} is {path}, which holds no finished run.")
    claim, config = (read_json(path / name) for name in ("privacy.json", "config.json"))
    if isinstance(claim.get("tuning"), dict) and "search" in claim["tuning"]:
        raise InputError(
            f"{named} is {path}, the best run of a search that was paid for, which is priced by "
            "itself alone: it neither begins another run nor is priced together with one."
        )
    lacking = sorted(set(_NEEDED) - claim.keys())
    if lacking:
        raise InputError(
            f"{named} is {path}, whose privacy.json lacks {', '.join(lacking)}: whether "
            "its guarantee is the weaker one cannot be said; start from another run."
        )
    entries, heads = read_entries(path / "ledger.jsonl")
    there = {"ledger_head": heads[-1], "config_digest": json_digest(config)}
    for name, digest in there.items():
        if claim[name] != digest:
            raise LedgerError(
                f"{named} is {path}, whose {name.partition('_')[0]} is not the one of its "
                "privacy.json, so what it saw and spent is not known: put it back, or start from "
                "another run."
            )
    try:
        _check_readable(claim)
        before = _before(claim, config)
        return _composed(path, claim, _own(path, claim, before), before, entries)
    except InputError as error:
        raise InputError(f"{named} is {path}, which cannot be compared: {error}") from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{named} is {path}, a file of which is damaged: {error!r}.") from error


def _check_readable(claim: Mapping[str, Any]) -> None:
    plain = claim["grade"] == "none"
    for name in sorted(SCHEMA.keys() & claim.keys() - ORDER.keys() - {"relation"}):
        if not fits_schema(name, claim[name], plain=plain):
            raise InputError(f"{name} of its privacy.json is {claim[name]!r}.")
    if not is_told(claim.get("earlier", {})) or not _is_delta(claim["delta"]):
        raise InputError("its privacy.json has a delta or an earlier stage that cannot be.")


def _is_delta(delta: float | None) -> bool:
    return delta is None or 0 < delta < 1


def _own(path: pathlib.Path, claim: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The words of the last stage: its claim's, and of the unit, which is the worst, its own."""
    people = path / "population.json"
    if not people.is_file():
        return claim
    facts = read_json(people)
    own = {**claim, "unit": facts.get("unit")}
    _rank("unit", own["unit"])
    if not is_about_people(facts) or (
        "earlier" in claim and worst(own, before)["unit"] != claim["unit"]
    ):
        raise InputError(f"its population.json says {facts}, and its claim {claim['unit']!r}.")
    return own


def check_protected(earlier: Earlier | None) -> None:
    """Raises InputError where a private run would begin with parameters that nobody protects."""
    if earlier is not None and earlier.unprotected:
        raise InputError(
            f"train.start_from is {earlier.folder}, a run without privacy: what is trained from "
            "its parameters cannot be private. Start from a private run, one on a PHANTOM, or none."
        )


def _composed(
    path: pathlib.Path,
    claim: Mapping[str, Any],
    own: Mapping[str, Any],
    before: Mapping[str, Any],
    entries: Sequence[Entry],
) -> Earlier:
    told = worst(own, before)
    for name in ("unit", "grade", "selection", "data"):
        _rank(name, told[name])
    if claim["relation"] != "add_or_remove_one":
        raise InputError(f"its neighbours are {claim['relation']!r}, not by adding or removing.")
    private = own["grade"] != "none"
    links = [Link(**link) for link in before.get("chain", ())]
    runs = claim["tuning"].get("runs", 1) - (
        sum(link.tuning_runs for link in links) if "earlier" in claim else 0
    )
    lines = len(entries) - sum(link.lines for link in links) if private else 0
    units = units_of(own, before) if private else list(before.get("units", ()))
    deltas = [d for d in (claim["delta"], before.get("delta")) if d is not None]
    return Earlier(
        folder=str(path),
        entries=tuple(entries),
        chain=(*links, Link(json_digest(claim), lines, runs)),
        units=tuple(units),
        **{name: told[name] for name in ("grade", "noise_source", "selection", "data")},
        delta=min(deltas, default=None),
        not_covered=tuple(claim["not_covered"] if private else before.get("not_covered", ())),
    )


def _before(claim: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of its own earlier stages, or what their folders say."""
    if "earlier" in claim:
        return dict(claim["earlier"])
    began = config["train"].get("start_from")
    return {} if began is None else read_earlier(began, named="its own train.start_from").told()


def _worse(name: str, one: Any, other: Any) -> Any:
    if None in (one, other):
        return one if other is None else other
    return max(one, other, key=lambda word: _rank(name, word))


def _rank(name: str, word: Any) -> int:
    if word not in ORDER[name]:
        raise InputError(
            f"{name} {word!r} is neither better nor worse than {' or '.join(ORDER[name])}."
        )
    return ORDER[name].index(word)
