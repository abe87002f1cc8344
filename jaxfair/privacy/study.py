"""What several runs cost that are published together: a study is a release too (protocol P17)."""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxfair.errors import InputError
from jaxfair.files import read_json
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.descent import Earlier, read_earlier
from jaxfair.privacy.statement import tuning_cost
from jaxfair.schema import COUPLED

__all__ = ["Fold", "Study", "Trained", "fold_of", "joint_cost", "read_study"]


class Fold(NamedTuple):
    """Whom a training left out by a rule that asks nobody but himself.

    Attributes:
      rule: population, what its ids name and where they are from, salt, number of folds and, where
        one fixed set tests, its share; under one rule everybody is in one fold.
      folds: how many there are.
      left_out: the one that tested, or that validated beside a fixed test set.
    """

    rule: tuple[Any, ...]
    folds: int
    left_out: int


class Trained(NamedTuple):
    """One training of a study.

    Attributes:
      events: what it released; of any rates, noise and number of steps.
      fold: whom it left out; None where anybody may have trained.
      runs: how often it was made, with other settings that were compared.
    """

    events: tuple[Event, ...]
    fold: Fold | None = None
    runs: int = 1


class Study(NamedTuple):
    """What `read_study` found.

    Attributes:
      names: of the folders.
      epsilons: each run's own.
      trained: every training that any of them rests on, once.
      delta: the smallest of all.
      epsilon: of all together.
      tuning_epsilon: with the runs that were compared for them; None where there were none.
      words: grade, units, selection, data and populations of all, the worst of each.
    """

    names: list[str]
    epsilons: list[float]
    trained: list[Trained]
    delta: float
    epsilon: float
    tuning_epsilon: float | None
    words: dict[str, str]


def joint_cost(trained: Iterable[Trained], delta: float, *, tuned: bool = False) -> float:
    """Returns epsilon at `delta` of all trainings together, for whoever pays most.

    All populations count as the same people, whatever they are called: nothing here shows that
    two are disjoint. Only folds of one rule do, since a person's fold follows from his own id:
    whoever is in fold 2 trained in all of five runs but one. The price is that of the fold that
    pays most, so five folds of one cost are four of them.

    Args:
      tuned: price each training as often as it was made.

    >>> event, rule = Event(1.0, 4.65, 60), ("clinic", "salt", 5)
    >>> folds = [Trained((event,), Fold(rule, 5, number)) for number in range(5)]
    >>> round(joint_cost(folds, 1e-5), 1), round(joint_cost(folds[:1] * 4, 1e-5), 1)
    (19.1, 19.1)
    """
    trained = list(trained)
    rules = {t.fold.rule: t.fold.folds for t in trained if t.fold is not None}
    people = itertools.product(*(range(count) for count in rules.values()))
    return max(_cost(trained, dict(zip(rules, own)), delta, tuned) for own in people)


def fold_of(config: Mapping[str, Any], population: str, unit: str) -> Fold | None:
    """Returns whom the split of a run's config leaves out of training; None for other rules.

    A person's fold is a hash of his id, and nobody trains in his own. Under "validation_folds" who
    is in the fixed test set trains in none and pays less than is said. Runs share a rule only where
    they call a person alike: ids of images and of patients, of two tables, or as written and merged
    are others.

    Args:
      unit: who was protected. An image under `dp.unit` may be placed by its patient or by itself,
        which no file of a run tells, so such a run leaves nobody out for sure.
    """
    data, asked = config.get("data", {}), config.get("dp", {}).get("unit")
    if data.get("split") not in ("folds", "validation_folds") or asked == "image":
        return None
    folds, about = int(data["folds"]), data.get("table") or {}
    ids = (unit, *(about.get(name) for name in ("file", "patient", "id", "image")))
    ids += (about.get("look_alikes") == "merge",)
    rule: tuple[Any, ...] = (population, data.get("source"), ids, data["split_salt"], folds)
    if data["split"] == "validation_folds":
        rule += (data["test_share"],)
    return Fold(rule, folds, int(data["fold"]))


def read_study(folders: Sequence[str | pathlib.Path]) -> Study:
    """Returns what the runs in these folders cost together, earlier stages counted once.

    Raises InputError for a folder without a finished run, one that stands there twice, and a run
    without privacy, beside which no guarantee holds for the people that they share.
    """
    found: dict[str, Trained] = {}
    runs = [read_earlier(folder, named="A run to be priced") for folder in folders]
    claims = [read_json(pathlib.Path(run.folder, "privacy.json")) for run in runs]
    for run, claim in zip(runs, claims):
        _check(run, [other.folder for other in runs if other.chain[-1] == run.chain[-1]])
        config = read_json(pathlib.Path(run.folder, "config.json"))
        own = fold_of(config, _population(run, claim), _unit(run, claim))
        events = [entry.event for entry in run.entries]
        for place, link in enumerate(run.chain, start=1):
            mine, events = tuple(events[: link.lines]), events[link.lines :]
            last = place == len(run.chain)
            if last or link.statement not in found:
                found[link.statement] = Trained(mine, own if last else None, link.tuning_runs)
    delta = min(run.delta for run in runs if run.delta is not None)
    trained = list(found.values())
    tuned = any(t.runs > 1 for t in trained)
    return Study(
        names=[pathlib.Path(run.folder).name for run in runs],
        epsilons=[claim["epsilon"] for claim in claims],
        trained=trained,
        delta=delta,
        epsilon=joint_cost(trained, delta),
        tuning_epsilon=joint_cost(trained, delta, tuned=True) if tuned else None,
        words=_words(runs, claims),
    )


def _cost(
    trained: Sequence[Trained], own: Mapping[tuple[Any, ...], int], delta: float, tuned: bool
) -> float:
    """What somebody pays who is in these folds, one of each rule."""
    shared = [t for t in trained if t.fold is None or own[t.fold.rule] != t.fold.left_out]
    runs = [t.events for t in shared for _ in range(t.runs if tuned else 1)]
    return float(tuning_cost(runs, delta, stages=0)["epsilon"] or 0.0)


def _check(run: Earlier, same: Sequence[str]) -> None:
    if run.grade == "none":
        raise InputError(
            f"{run.folder} was trained without privacy: for people that it shares with other runs "
            "no guarantee is left once it is published; leave it out to price the others."
        )
    if len(same) > 1:
        raise InputError(f"{same[0]} and {same[1]} are the same run; name it once.")


def _population(run: Earlier, claim: Mapping[str, Any]) -> str:
    return run.entries[-1].population if run.entries else str(claim["population"])


def _unit(run: Earlier, claim: Mapping[str, Any]) -> str:
    """Whom the last stage alone protects; the claim has the worst of all."""
    people = pathlib.Path(run.folder, "population.json")
    return str((read_json(people) if people.is_file() else claim)["unit"])


def _words(runs: Sequence[Earlier], claims: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The worst word of all runs, and everybody's unit and population."""
    populations = sorted({_population(run, claim) for run, claim in zip(runs, claims)})
    research = any(run.grade != "private" for run in runs)
    return {
        "grade": "research" if research else "private",
        "units": ", ".join(sorted({unit for run in runs for unit in run.units})),
        "selection": max((run.selection for run in runs), key=lambda word: word == COUPLED),
        "populations": ", ".join(populations),
    }
