"""Searches for settings at a price: the best of a random number of runs, under one claim.

    jaxfair tune --config derm_probe --try=optim.learning_rate=1..100,optim.momentum=0|0.9 --mean=10
    jaxfair tune --config derm_probe --config.dp.epsilon=4 --try=... --workdir=runs/search

`dp.epsilon` is the budget of the whole search: each run trains with so much noise that the best of
a random number of them (`--law`, `--mean`) stays within it (Papernot and Steinke 2022). Runs differ
in the fields that --try names, drawn at random, and in nothing that changes their price. The
chosen run lies in WORKDIR/chosen, evaluated and reported like any other; its privacy.json states
the claim of search and run together, and there is no second training. The same command on the same
--workdir resumes.

Whoever trains is covered. Validation patients decide which run is best, by AUROC, and are not, as
they never are in this house; --validation-epsilon takes a noisy sum of each patient's score
instead (1 minus the squared error, for scores that are probabilities), and search.json then
states their guarantee too. Other runs, how many there were, tried.csv and tried.png are covered
by nothing: they stay in the house.

A search that nobody paid for is still counted by dp.tuning_runs. What needs no search is
optim.rate_at_epsilon, by which the learning rate follows epsilon.
"""

import contextlib
import datetime
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxfair import files, train
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import Settings, plan_from_settings, sections, settings_from_config
from jaxfair.engine.books import Options
from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.score import SENSITIVITY
from jaxfair.privacy.search import LAWS, Search, generator, stopping_number
from jaxfair.privacy.secret import Secret, forget_secret
from jaxfair.run import fingerprint
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import progress_bar
from jaxfair.start import open_data
from jaxfair.tune.space import Field, drawn, read_space, with_settings
from jaxfair.tune.trials import (
    SearchFolder,
    Trial,
    best,
    forget,
    keep,
    scored,
    trained,
    write_tried,
)

__all__ = ["COMMAND", "main", "run"]


def run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    space: Sequence[str],
    mean: float = 10.0,
    law: str = "geometric",
    validation_epsilon: float | None = None,
    num_devices: int | None = None,
    with_images: bool = False,
    progress: bool = True,
) -> RunFolder | None:
    """Searches, or resumes the search, in `workdir`; returns the chosen run, evaluated.

    Args:
      config: of the runs; `dp.epsilon` is the budget of the search.
      space: as `space.read_space` takes it.
      mean, law: of the number of runs (`privacy.search`).
      validation_epsilon: choose by a noisy score, with this guarantee for validation patients.

    Returns None where the law is Poisson and no run was drawn: then nothing is released.

    Raises InputError as `train.run`, for a space that changes the price of a run, and where the
    folder holds another search.
    """
    folder = SearchFolder(pathlib.Path(workdir))
    if "dp" in config and config.dp.get("tuning_runs", 1) != 1:
        raise InputError(
            f"dp.tuning_runs is {config.dp.tuning_runs}, which counts runs that were compared "
            "without payment; a search pays for its own: set it to 1 if there were no others."
        )
    if not 1 < mean <= 1e6:
        raise InputError(f"--mean is {mean}; a search makes more than 1 run on average.")
    base = with_settings(config, {"dp.search_mean": float(mean), "dp.search_law": law})
    fields, settings = read_space(space, base), settings_from_config(base)
    plan = plan_from_settings(settings)
    told = _told(base, fields, plan, Search(float(mean), law), validation_epsilon)
    folder.path.mkdir(parents=True, exist_ok=True)
    with RunFolder(folder.path).locked():
        _claim(folder, told)
        if not folder.chosen.exists() and not _none_drawn(folder):
            _search(folder, base, settings, plan, fields, told, num_devices, progress)
        forget_secret(folder.secret)
        folder.fingerprint.unlink(missing_ok=True)
        forget(folder)
        RunFolder(folder.path).level_times()  # how long it took tells how many runs there were
    if _none_drawn(folder):
        return None
    chosen = ConfigDict(files.read_json(folder.chosen / "config.json"))
    return train.run(chosen, folder.chosen, with_images=with_images, progress=progress)


def _search(
    folder: SearchFolder,
    base: ConfigDict,
    settings: Settings,
    plan: PrivacyPlan,
    fields: Sequence[Field],
    told: dict[str, Any],
    num_devices: int | None,
    progress: bool,
) -> None:
    """Trains and scores every run, and keeps the best."""
    dataset = open_data(settings, progress=progress)
    secret = _secret(folder, settings, plan, dataset.digest)
    search = Search(told["mean"], told["law"])
    trials = _trials(folder, base, plan, fields, stopping_number(search, secret), secret)
    noise = told["validation"]["noise_multiplier"] if told["validation"] else None
    scores: dict[int, float] = {}
    options = Options(seed=settings.seed, progress=False)
    with progress_bar(len(trials), what="search", unit="run", hidden=not progress) as bar:
        for trial in trials:
            trained(trial, num_devices, options)
            scores[trial.number] = scored(
                trial, dataset, None if noise is None else (secret, noise)
            )
            bar.update(1)
    write_tried(folder, trials, scores, told)
    if scores:
        keep(trials[best(scores)], folder)
    else:
        files.write_json(folder.search, told | {"runs": 0})


def _trials(
    folder: SearchFolder,
    base: ConfigDict,
    plan: PrivacyPlan,
    fields: Sequence[Field],
    count: int,
    secret: Secret,
) -> list[Trial]:
    """All runs of the search, each with settings of its own, every one at the same price."""
    found = []
    for number in range(count):
        settings = drawn(fields, generator(secret, "settings", number))
        if base.dp.get("insecure_seed") is not None:  # research: noise of its own all the same
            settings |= {"dp.insecure_seed": base.dp.insecure_seed + number}
        config = with_settings(base, settings)
        own = plan_from_settings(settings_from_config(config))
        if (own.event(own.steps), own.delta) != (plan.event(plan.steps), plan.delta):
            raise InputError(
                f"--try gives {settings}, at which a run has another price than at the config's own"
                " settings: leave out what changes rate, noise or steps."
            )
        where = RunFolder(folder.trial(number))
        found.append(Trial(number, settings, config, where))
    return found


def _told(
    base: ConfigDict,
    fields: Sequence[Field],
    plan: PrivacyPlan,
    search: Search,
    validation_epsilon: float | None,
) -> dict[str, Any]:
    """search.json: public constants alone."""
    validation = None
    if validation_epsilon is not None:
        sigma = accounting.noise_multiplier_from_epsilon(
            validation_epsilon, plan.delta, 1.0, 1, search=search
        )
        event = accounting.Event(1.0, sigma, 1)
        validation = {
            "epsilon": accounting.epsilon([event], plan.delta, search=search),
            "delta": plan.delta,
            "noise_multiplier": sigma,
            "sensitivity": SENSITIVITY,
            "covered": "each validation patient (as the data name them), by adding or removing one,"
            " of the choice of the run; not of the report and the tables",
        }
    return {
        "law": search.law,
        "mean": search.mean,
        "space": {field.name: field.told() for field in fields},
        "score": "validation AUROC, mean over tasks" if validation is None else "noisy Brier score",
        "validation": validation,
        "config": base.to_dict(),
    }


def _claim(folder: SearchFolder, told: dict[str, Any]) -> None:
    """Takes the folder for this search; refuses one that holds another."""
    if not folder.search.exists():
        if any(path.name != "lock" for path in folder.path.iterdir()):
            raise InputError(f"{folder.path} holds something else: name another --workdir.")
        files.write_json(folder.search, told)
    theirs = files.read_json(folder.search)
    theirs.pop("runs", None)
    if files.json_digest(theirs) != files.json_digest(told):
        raise InputError(
            f"{folder.path} holds another search (its search.json differs): give the same command "
            "to resume it, or name another --workdir."
        )


def _none_drawn(folder: SearchFolder) -> bool:
    return files.read_json(folder.search).get("runs") == 0


def _secret(folder: SearchFolder, settings: Settings, plan: PrivacyPlan, digest: str) -> Secret:
    """The secret of the search, which keys the number of runs, their settings and noise of scores.

    Raises InputError where data or code are not those with which the search began.
    """
    begun = folder.fingerprint.exists()
    secret = plan.open_secret(
        folder.secret,
        seed=settings.seed,
        insecure_seed=settings.dp.insecure_seed,
        may_create=not begun,
    )
    parts = {"data": digest, "code": fingerprint.digest_of_code()}
    fingerprint.check(folder.fingerprint, secret, parts, may_create=not begun)
    return secret


COMMAND = Command(
    name="tune",
    about=__doc__,
    flags=(
        Flag("workdir", str, None, "folder of the search; an unfinished one is resumed"),
        Flag("try", list, [], "what is tried, as NAME=LOW..HIGH or NAME=ONE|OTHER, with commas"),
        Flag("mean", float, 10.0, "expected number of runs"),
        Flag("law", str, "geometric", f"law of the number of runs: {', '.join(LAWS)}"),
        Flag("validation-epsilon", float, None, "choose by a noisy score, at this epsilon"),
        Flag("devices", int, None, "how many devices to use; left out: all"),
        Flag("with-images", bool, False, "allow images of patients in the report"),
    ),
    sections=sections,
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status: 0, 2 for refused input, 130 if interrupted."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    workdir = line.flags["workdir"] or f"runs/{files.slug(line.config.name)}-search-{now}"
    print(f"To resume this search, give the same command with --workdir={workdir}")
    with _interrupts() as status:
        found = run(
            line.config,
            workdir,
            space=line.flags["try"],
            mean=line.flags["mean"],
            law=line.flags["law"],
            validation_epsilon=line.flags["validation-epsilon"],
            num_devices=line.flags["devices"],
            with_images=line.flags["with-images"],
        )
        if found is None:
            print(
                "The law of the search drew no run, so nothing is released; a new one pays again."
            )
        else:
            print(f"Report: {found.report}\nWhat was tried, in-house: {workdir}/tried.png")
    return status[0]


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """An interrupt ends the command with status 130 and a word on how to go on."""
    status = [0]
    try:
        yield status
    except KeyboardInterrupt:
        print("\nInterrupted; the same command on the same --workdir resumes.", file=sys.stderr)
        status[0] = 130


if __name__ == "__main__":
    sys.exit(main(sys.argv))
