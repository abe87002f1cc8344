"""What disentangling does: an adversary and orthogonality, against the same heads without them.

    make disentangle          # python -m experiments.e05_disentangle.study
    make disentangle-quick    # the same code, less of everything
    python -m experiments.e05_disentangle.study --tables --keep    # trains nothing, writes results/

Resumable: what is done is not done again. Heads on fixed features take 5 seeds on drawn films with
a planted link, whose test set is large, and 5 folds x 5 seeds on skin lesions (left out, with the
reason, where they are not at hand); a ResNet9 from scratch one fold x 3 seeds of the lesions; each
without privacy and at epsilon 8.
"""

import pathlib
import sys

import pandas as pd

from experiments.arms import page, tables
from experiments.arms.cells import PLAIN, Arm, Data, Grid
from experiments.arms.published import published
from experiments.arms.sets import FEATURES, IMAGES, NETWORK, lesions, linked_phantom, training
from experiments.arms.study import Part, Study, main

OUT = "runs/e05_disentangle"
EPSILON = 8.0
NOTHING_BEFORE = "nothing before the fixed features could be led by the adversary"
BATCH = "its covariance reads other examples"

ADVERSARIAL = {"name": "adversarial", "embedding": 1}
"""One number is enough to tell one finding, and has no direction in which to hide an attribute."""

DIRECTED = {"name": "adversarial", "embedding": 4}
"""What is to be orthogonal needs directions; it has few, to leave little room."""

NARROW, PRIVATE = {"hidden": 64}, {"hidden": 32}
"""Wide enough for fixed features; noise goes into every parameter, so private ones are narrower."""

FAST = {"parts": {"adversary": {"learning_rate": 2e-3}}}
"""An adversary that keeps up with what it watches. At five times the rate two runs of five ended in
an embedding that is the same for all images."""

OFF = {"sensitive_weight": 0.0, "adversary_weight": 0.0}
HELD = {"embedding_weight": 0.3}
"""Without a pull to the origin the reversal leads the embedding away from where the adversary's
hidden units are on; what it then tells is for fresh probes to read."""

STRENGTHS = tuple({"method.reversal": value} for value in (1.0, 5.0, 10.0))
RATES = tuple({"optim.learning_rate": value} for value in (1e-3, 3e-3, 1e-2))
WEIGHTS = tuple({"method.orthogonality_weight": value} for value in (1.0, 10.0, 100.0))

ONE = {**ADVERSARIAL, **HELD}
ALONE = {**ADVERSARIAL, "sensitive_weight": 0.0}

ARMS = (
    Arm("erm", "ERM", {**ADVERSARIAL, **OFF}, published="baseline", settings=RATES),
    Arm("conditional", "adversary, label given", ONE, optim=FAST,
        when_private={"sensitive_weight": 0.0}, published="fair model", settings=STRENGTHS),
    Arm("unconditional", "adversary, label not given", {**ONE, "conditional": False}, optim=FAST,
        when_private={"sensitive_weight": 0.0}, settings=STRENGTHS),
    Arm("example", "orthogonal by example",
        {**DIRECTED, "adversary_weight": 0.0, "orthogonality": "example"}, settings=WEIGHTS),
    Arm("batch", "orthogonal over a batch",
        {**DIRECTED, "adversary_weight": 0.0, "orthogonality": "batch"}, private=BATCH,
        settings=WEIGHTS),
    Arm("both", "adversary and orthogonal by example",
        {**DIRECTED, **HELD, "orthogonality": "example"}, optim=FAST, settings=STRENGTHS),
    Arm("lntl", "LNTL", {**ALONE, "adversary_on": "features"}, optim=FAST,
        skip={"heads": NOTHING_BEFORE}, settings=STRENGTHS),
    Arm("al", "AL", {**ALONE, "adversary_on": "logit"}, optim=FAST, settings=STRENGTHS),
)  # fmt: skip
ARMS = tuple(
    arm._replace(method={**NARROW, **arm.method}, when_private={**PRIVATE, **arm.when_private})
    for arm in ARMS
)

TRAINED = ("erm", "conditional", "lntl")
"""Of these a whole network is trained too, on the real images: what needs one, and its peers."""


def make(quick: bool) -> Study:
    """Returns the study; its quick form has less of everything and the same code."""
    epsilons = (PLAIN, EPSILON)
    seeds = (1,) if quick else range(1, 6)
    drawn, real = Grid(epsilons, (0,), seeds), Grid(epsilons, (0,) if quick else range(5), seeds)
    network = Grid(epsilons, (0,), (1,) if quick else (1, 2, 3))
    trained = tuple(arm for arm in ARMS if arm.name in TRAINED)
    parts = (
        *(Part("heads", ARMS, grid, lambda e: training("heads", quick=quick, epsilon=e), FEATURES,
               IMAGES, only=(data,)) for data, grid in (("phantom", drawn), ("lesions", real))),
        Part("resnet9", trained, network, lambda e: training("resnet9", quick=quick, epsilon=e),
             NETWORK, {}, searched="heads", only=("lesions",)),
    )  # fmt: skip
    return Study("Disentangling", (linked_phantom(quick), lesions(quick)), parts, write)


def write(data: Data, part: Part, out: pathlib.Path) -> None:
    """Writes the thesis's table with ours beside it, leakage within labels, and the plots."""
    told, table = page.begin(out, data, part.arms)
    if not table.empty:
        thesis(told, table, part, data)
        page.leakage(told, part.arms)
        page.gaps_and_front(told, table, part.arms, data)
    page.write(out, data, told)


def thesis(told: page.Told, table: pd.DataFrame, part: Part, data: Data) -> None:
    """Adds the thesis's table for every test set, attribute and epsilon."""
    for on in page.both_tests(table):
        for attribute in data.attributes:
            for epsilon in sorted(set(table["epsilon"]), reverse=True):
                at = "without privacy" if epsilon == PLAIN else f"at epsilon {epsilon:g}"
                where = {"on": on, "attribute": attribute, "epsilon": epsilon, **page.RULE}
                told.say(
                    f"## The thesis's table: {page.TESTS[on]}, {attribute}, {at}",
                    tables.markdown(tables.thesis_shape(table, part.arms, part.name, **where)),
                )
    printed = published("thesis").pivot(index="method", columns="measure", values="value")
    told.say(
        "Printed: "
        + "; ".join(
            f"{name}: AUC {row['AUROC']:.2f}, AUC gap {row['delta-AUC']:.2f}, equalized odds "
            f"{row['delta-EO']:.2f}"
            for name, row in printed.iterrows()
        )
        + ", and no number for calibration. The thesis does not say on which data, groups or "
        "thresholds, nor how uncertain its numbers are, so they cannot be compared with ours."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], make, OUT, pathlib.Path(__file__).parent / "results"))
