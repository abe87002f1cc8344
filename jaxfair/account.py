"""Prices a config before it runs, checks a run after it, and prices several runs together.

    jaxfair account --config rsna_fae
    jaxfair account --verify RUN
    jaxfair account --joint RUN RUN ...
    jaxfair account --epsilon 8 --delta 1e-6 --images 5
    jaxfair account --epsilon 8 --delta 1e-6 --images 5 --rate .01 --steps 2000

The verifier finds mistakes, not forgery: it recomputes every number that follows from others,
compares the rest with config, ledger and earlier stages, and parameters and metrics by digest.
The tables of a release are computed again from its noisy histograms.
What cannot be checked is said. Nothing is written.

Runs that appear together are one release (protocol P17): --joint gives their epsilon in one
composition, beside each run's own. All populations count as the same people, since nothing shows
that they are disjoint; folds of one rule (data.split=folds with one salt) leave each person out
once, and earlier stages count once.

--images K says what a guarantee for each image is worth to a patient with K images: K epsilon, and
a delta that grows with it, or, where rate and steps of a DP-SGD that drew images one by one are
known, what its PLD says. Figures are rounded up.
"""

import math
import pathlib
import sys
from collections.abc import Iterable, Sequence

from ml_collections import ConfigDict

from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import plan_from_settings, sections, settings_from_config
from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.meaning import risk_words, rounded_up
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.publication import STATEMENT, check_release
from jaxfair.privacy.risk import group_guarantee, risk
from jaxfair.privacy.study import read_study
from jaxfair.privacy.verify import check_run, verify_run
from jaxfair.publish.recomputed import check_tables

__all__ = ["COMMAND", "joint", "main", "of_patients", "price", "verify"]

_EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
_GROUPS = (1, 2, 3, 5)


def price(config: ConfigDict) -> str:
    """Returns what a config costs: epsilon over its steps, sigma by epsilon, k images a person."""
    plan = plan_from_settings(settings_from_config(config))
    if not plan.private:
        raise InputError(f"{config.name} trains without privacy (dp.enabled=False): no price.")
    head = (
        f"{config.name}: q = {plan.sampling_prob:.5g}, {plan.steps:,} steps, sigma "
        f"{plan.noise_multiplier:.4f}, delta {plan.delta:.3g}"
    )
    parts = [head, _meaning(plan), _over_steps(plan)]
    parts += [] if plan.perturbation else [_by_epsilon(plan)]  # its noise is on no mean gradient
    return "\n\n".join([*parts, _alone(plan) if plan.search else _by_group_size(plan)])


def verify(workdir: pathlib.Path) -> list[str]:
    """Returns what does not hold in a run folder, one sentence each; empty when all holds."""
    return verify_run(workdir)


def joint(folders: Sequence[str]) -> str:
    """Returns what runs cost that are published together, beside each run's own epsilon.

    Raises InputError as `study.read_study`.
    """
    study = read_study(folders)
    rows = [(name, f"{own:.4f}") for name, own in zip(study.names, study.epsilons)]
    lines = [
        _table(("run", "epsilon"), [*rows, ("all together", f"{study.epsilon:.4f}")]),
        f"At delta {study.delta:.3g}; grade {study.words['grade']}, selection "
        f"{study.words['selection']}, unit {study.words['units']}, population "
        f"{study.words['populations']}: all populations count as the same people, since nothing "
        "shows that they are disjoint.",
    ]
    if study.tuning_epsilon is not None:
        lines.append(f"With the runs that were compared for them: {study.tuning_epsilon:.4f}.")
    return "\n\n".join(lines)


def of_patients(
    epsilon: float,
    delta: float,
    images: int,
    *,
    rate: float | None = None,
    steps: int | None = None,
) -> str:
    """Returns what an image's (epsilon, delta) is worth to a patient with so many images.

    Args:
      images: of one patient, at most.
      rate, steps: sampling probability of an image and number of steps, of a DP-SGD that draws
        images one by one with that epsilon; None where the mechanism is not known.

    Raises InputError for numbers that are out of range, and for a rate without steps.
    """
    _check_image_level(epsilon, delta, images, rate, steps)
    total, grown = group_guarantee(epsilon, delta, images)
    end = "which promises nothing" if grown >= 1 else "for the patient"
    lines = [
        f"Each image: epsilon {rounded_up(epsilon)}, delta {rounded_up(delta)}; a patient has"
        f" {images} at most.",
        f"Any mechanism, by group privacy: epsilon {rounded_up(total)}, delta {rounded_up(grown)},"
        f" {end}.",
    ]
    if rate is not None and steps is not None:
        sigma = accounting.noise_multiplier_from_epsilon(epsilon, delta, rate, steps)
        by_pld = accounting.group_epsilon(Event(rate, sigma, steps), delta, images)
        lines.append(
            f"By the PLD of {steps:,} steps at rate {rate:g} (sigma {sigma:.4f}): epsilon "
            f"{rounded_up(by_pld)} at the same delta, for the patient."
        )
    return "\n".join(lines)


def _check_image_level(
    epsilon: float, delta: float, images: int, rate: float | None, steps: int | None
) -> None:
    if not (0 < epsilon < math.inf and 0 < delta < 1 and images >= 1):
        raise InputError(
            f"--epsilon is {epsilon}, --delta {delta} and --images {images}: epsilon is positive, "
            "delta lies in (0, 1), and a patient has 1 image or more."
        )
    if (rate is None) != (steps is None):
        raise InputError("--rate and --steps go together: give both, or neither.")
    if rate is not None and steps is not None and not (0 < rate <= 1 and steps >= 1):
        raise InputError(
            f"--rate is {rate} and --steps {steps}: give a rate in (0, 1] and 1 or more."
        )


def _meaning(plan: PrivacyPlan) -> str:
    found = risk([plan.event(plan.steps)], plan.delta, plan.search)
    words = risk_words(found["true_positive_rates"], "unit")
    return f"{words} Gaussian-DP mu {found['gaussian_mu']:.4f}."


def _over_steps(plan: PrivacyPlan) -> str:
    counts = sorted({max(1, plan.steps * part // 5) for part in range(1, 6)})
    rows = []
    for steps in counts:
        event = [plan.event(steps)]
        claimed = accounting.epsilon(event, plan.delta, search=plan.search)
        by_rdp = accounting.epsilon_rdp(event, plan.delta, search=plan.search)
        rows.append((f"{steps:,}", f"{claimed:.4f}", f"{by_rdp:.4f}"))
    by = "RDP of the search" if plan.search else "PLD"
    return _table(("steps", f"epsilon ({by})", "epsilon (RDP)"), rows)


def _alone(plan: PrivacyPlan) -> str:
    """What a run of a search would cost by itself."""
    assert plan.search is not None
    alone = accounting.epsilon([plan.event(plan.steps)], plan.delta)
    law, mean = plan.search.law, plan.search.mean
    return (
        f"One of a search (number of runs {law}, {mean:g} on average), of which the best run alone "
        f"is released; by itself it would cost epsilon {alone:.4f}."
    )


def _by_epsilon(plan: PrivacyPlan) -> str:
    targets = sorted({*_EPSILONS, plan.budget})
    rows = []
    for target in targets:
        sigma = accounting.noise_multiplier_from_epsilon(
            target, plan.delta, plan.priced_prob, plan.steps, search=plan.search
        )
        noise = sigma * plan.l2_clip_norm / plan.expected_batch_size
        rows.append((f"{target:g}", f"{sigma:.4f}", f"{noise:.3g}"))
    return _table(("epsilon", "sigma", "noise on each entry of the mean gradient"), rows)


def _by_group_size(plan: PrivacyPlan) -> str:
    event = plan.event(plan.steps)
    rows = [(str(k), f"{accounting.group_epsilon(event, plan.delta, k):.4f}") for k in _GROUPS]
    title = "If images were drawn one by one, a person with k images would have:"
    return title + "\n" + _table(("k", "epsilon"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [tuple(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths)) for line in lines)


COMMAND = Command(
    name="account",
    about=__doc__,
    flags=(
        Flag("verify", str, None, "run folder, or folder of a release, to check"),
        Flag("joint", bool, False, "price these run folders together, as one release"),
        Flag("images", int, None, "images of one patient, for somebody's guarantee of each image"),
        Flag("epsilon", float, None, "with --images: epsilon of each image"),
        Flag("delta", float, None, "with --images: delta of each image"),
        Flag("rate", float, None, "with --images: sampling probability of an image, if known"),
        Flag("steps", int, None, "with --images: number of steps, if known"),
    ),
    words="RUN",
    sections=sections,
    needs_config=False,
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; exit status 0, 1 for a run that does not verify, 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    workdir, together = line.flags["verify"], line.flags["joint"]
    asked = {"images", "epsilon", "delta", "rate", "steps"} & line.given
    if (line.config is not None) + (workdir is not None) + together + bool(asked) != 1:
        raise InputError(
            "Give --config FILE to price a config, --verify RUN to check a run, --joint RUN RUN "
            "to price runs together, or --epsilon, --delta and --images for a patient's guarantee."
        )
    if asked and not {"images", "epsilon", "delta"} <= asked:
        raise InputError("A patient's guarantee needs --epsilon, --delta and --images.")
    if bool(line.words) != together:
        raise InputError(
            "--joint prices run folders together: give --joint RUN RUN ..., and folders with no "
            "other flag."
        )
    if asked:
        named = {name: line.flags[name] for name in ("epsilon", "delta", "images", "rate", "steps")}
        print(of_patients(**named))
    elif together:
        print(joint(line.words))
    elif workdir is not None:
        return _verify_command(workdir)
    else:
        print(price(line.config))
    return 0


def _verify_command(workdir: str) -> int:
    if pathlib.Path(workdir, STATEMENT).is_file():
        folder = pathlib.Path(workdir)
        return _told(workdir, check_release(folder) or check_tables(folder), [])
    if not pathlib.Path(workdir, "privacy.json").is_file():
        raise InputError(f"{workdir} holds no finished run (it has no privacy.json).")
    return _told(workdir, *check_run(pathlib.Path(workdir)))


def _told(workdir: str, faults: Sequence[str], unchecked: Sequence[str]) -> int:
    for fault in faults:
        print(f"MISMATCH {fault}", file=sys.stderr)
    for sentence in unchecked:
        print(f"NOT CHECKED {sentence}", file=sys.stderr)
    if not faults:
        print(f"{workdir}: everything that can be recomputed agrees.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
