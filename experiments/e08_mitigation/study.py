"""What closes gaps between groups at the same epsilon? Every mitigation, searched alike.

    make mitigation          # python -m experiments.e08_mitigation.study
    make mitigation-quick    # the same code, less of everything
    python -m experiments.e08_mitigation.study --tables     # trains nothing
    python -m experiments.e08_mitigation.study --full [--root DIR]    # DIR holds RSNA

Every mitigation of the library's table tries as many settings as plain DP-SGD does, on the first
seed; the validation images choose among them, and the chosen one is trained with further seeds.
Resumable: what is done is not done again.
"""

import pathlib
import sys

from experiments.e08_mitigation import page
from experiments.e08_mitigation.plan import Plan, chosen, make, tried
from experiments.gaps.command import Command, main, some
from experiments.gaps.runs import train_runs

__all__ = ["COMMAND", "only", "train"]


def train(plan: Plan, out: pathlib.Path) -> None:
    """Trains what is missing: all settings with the first seed, then the chosen ones.

    Part by part, whole seeds first within each: runs of one part share data, features and prices.
    """
    for line in plan.missing:
        print(f"not run: {line}", file=sys.stderr)
    cells = [(p, arm, e) for p in plan.parts for e in p.epsilons for arm in p.arms]
    searched = [run for cell in cells for run in tried(*cell)]
    train_runs(searched, out, what="settings")
    kept = [run for cell in cells for run in chosen(out, *cell)]
    parts = [(part.source.name, part.method) for part in plan.parts]
    order = lambda run: (parts.index((run.data, run.method)), -run.epsilon, run.seed)
    train_runs(sorted(kept, key=order), out, what="mitigations")


def only(plan: Plan, data: str, method: str) -> Plan:
    """Returns the parts of one source and one Method; "" is every one.

    Raises InputError where there is none.
    """
    kept = [p for p in plan.parts if data in ("", p.source.name) and method in ("", p.method)]
    return plan._replace(parts=tuple(some(kept, data, method)))


COMMAND = Command(
    about=str(__doc__).splitlines()[0],
    default="runs/e08_mitigation",
    results=pathlib.Path(__file__).parent / "results",
    make=make,
    only=only,
    run=train,
    write=page.write,
)

if __name__ == "__main__":
    sys.exit(main(COMMAND, sys.argv[1:]))
