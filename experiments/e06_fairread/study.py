"""Disentangle, then give attributes back: FairREAD and its baselines, with and without privacy.

    make fairread             # python -m experiments.e06_fairread.study
    make fairread-quick       # the same code, less of everything
    python -m experiments.e06_fairread.study --tables --keep    # trains nothing, writes results/

Resumable: what is done is not done again. Heads on fixed features that no patient shaped take 5
folds x 5 seeds; a ResNet9 from scratch takes one fold x 3 seeds. Each arm without privacy and at
epsilon 8, on drawn films with a planted link and on skin lesions (left out, with the reason, where
they are not at hand).
"""

import pathlib
import sys

import pandas as pd

from experiments.arms import page, tables
from experiments.arms.cells import PLAIN, Arm, Data, Grid
from experiments.arms.measures import RULES
from experiments.arms.published import MISPRINTS, published
from experiments.arms.sets import FEATURES, IMAGES, NETWORK, lesions, linked_phantom, training
from experiments.arms.study import Part, Study, main

OUT = "runs/e06_fairread"
EPSILON = 8.0

NO_NORMS = "fixed features have no norms that are trained"
NO_MAPS = "it re-fuses the maps of a backbone, and fixed features have none"
NOTHING_BEFORE = "nothing before the fixed features could be led by the adversary"
ALIKE = {"name": "adversarial", "sensitive_weight": 0.0, "adversary_weight": 0.0, "hidden": 32,
         "embedding": 8}  # fmt: skip
"""The plain classifier of heads as small as privacy likes them."""

SAME = (
    "The same numbers: no group has the 200 validation cases of either label that a threshold of "
    "its own needs."
)

SHARES = {"phantom": (0.275, 0.275, 0.225, 0.225), "lesions": (0.4, 0.06, 0.44, 0.1)}


def grid_of(field: str, *values: float) -> tuple[dict[str, float], ...]:
    """Returns the settings of an arm: one field, three values as everybody has."""
    return tuple({field: value} for value in values)


FCRO = {"name": "fcro", "embedding": 8, "column_weight": 1.0, "row_weight": 5.0}
"""Lighter than published, by which little is learned of the label in so few steps (README)."""

STAGES = {"name": "fairread", "moment_share": 0.03, "target_share": 0.2, "fusion_share": 0.6}
FAIRREAD = {**FCRO, **STAGES, "arm": "disentangled", "column_weight": 0.3, "conditional": True,
            "blocks": 1, "width": 64}  # fmt: skip
PUBLISHED = {**FCRO, **STAGES, "arm": "published"}
PRIVATE = {"row_weight": 0.0}
"""The row loss reads other examples, so private runs go without it."""

ARMS = (
    Arm("erm", "ERM", ALIKE, published="ERM",
        settings=grid_of("optim.learning_rate", 1e-3, 3e-3, 1e-2)),
    Arm("fcro", "FCRO", FCRO, when_private=PRIVATE, published="FCRO",
        settings=({"method.column_weight": 0.3, "method.row_weight": 0.5},
                  {"method.row_weight": 0.5}, {"method.row_weight": 5.0})),
    Arm("lntl", "LNTL", {**ALIKE, "adversary_weight": 1.0, "adversary_on": "features"},
        skip={"heads": NOTHING_BEFORE}, published="LNTL",
        settings=grid_of("method.reversal", 1.0, 3.0, 5.0)),
    Arm("al", "AL", {**ALIKE, "adversary_weight": 1.0, "adversary_on": "logit"},
        published="AL", settings=grid_of("method.reversal", 1.0, 3.0, 5.0)),
    Arm("groupnorms", "FairAdaBN's idea, GroupNorm by group", ALIKE, {"name": "group_norms"},
        skip={"heads": NO_NORMS}, needs="its groups", published="FairAdaBN",
        settings=grid_of("mitigation.drop", 0.0, 0.1, 0.3)),
    Arm("dro", "group DRO", ALIKE, {"name": "group_dro", "by": ("sex",)},
        private="its weights are a query of every loss",
        settings=grid_of("mitigation.rate", 0.003, 0.01, 0.1)),
    Arm("jtt", "JTT", ALIKE, {"name": "jtt"},
        settings=grid_of("mitigation.weight", 2.0, 5.0, 20.0)),
    Arm("balanced", "head on balanced cells", ALIKE, {"name": "balanced_head", "by": ("sex",)},
        settings=grid_of("mitigation.share", 0.1, 0.25, 0.5)),
    Arm("published", "FairREAD, published", PUBLISHED,
        when_private=PRIVATE, skip={"heads": NO_MAPS}, needs="its attributes",
        published="FairREAD", settings=grid_of("method.alpha", 1.0, 3.0, 10.0)),
    Arm("fairread", "FairREAD, disentangled", FAIRREAD, when_private=PRIVATE,
        needs="its attributes", published="FairREAD",
        settings=grid_of("method.alpha", 1.0, 3.0, 10.0)),
    Arm("dropped", "the same, no attribute at test", {**FAIRREAD, "at_test": "dropped"},
        when_private=PRIVATE, settings=grid_of("method.alpha", 1.0, 3.0, 10.0)),
)  # fmt: skip

TRAINED = ("erm", "lntl", "groupnorms", "published", "fairread", "dropped")
"""Of these a whole network is trained too, on the real images: what needs one, and its peers."""


def make(quick: bool) -> Study:
    """Returns the study; its quick form has less of everything and the same code."""
    epsilons = (PLAIN, EPSILON)
    heads = Grid(epsilons, (0,) if quick else range(5), (1,) if quick else range(1, 6))
    network = Grid(epsilons, (0,), (1,) if quick else (1, 2, 3))
    drawn, real = linked_phantom(quick), lesions(quick)
    trained = tuple(arm for arm in ARMS if arm.name in TRAINED)
    parts = (
        Part("heads", ARMS, heads, lambda e: training("heads", quick=quick, epsilon=e), FEATURES,
             IMAGES, SHARES),
        Part("resnet9", trained, network, lambda e: training("resnet9", quick=quick, epsilon=e),
             NETWORK, {}, SHARES, searched="heads", only=("lesions",)),
    )  # fmt: skip
    return Study("FairREAD", (drawn, real), parts, write)


def write(data: Data, part: Part, out: pathlib.Path) -> None:
    """Writes the tables of the published shape, ours beside the printed ones, and the plots."""
    told, table = page.begin(out, data, part.arms)
    if not table.empty:
        table_2(told, table, part, data)
        table_3(told, table, part, data)
        page.leakage(told, part.arms)
        page.gaps_and_front(told, table, part.arms, data)
    page.write(out, data, told)


def table_2(told: page.Told, table: pd.DataFrame, part: Part, data: Data) -> None:
    """Adds tables 2 and 4: arms on the run's own test set, and on that of another site."""
    for on in page.both_tests(table):
        own = on == page.CORRELATED
        printed = published("fairread-2" if own else "fairread-4")
        name = "Table 2, own test set" if own else "Table 4, another site"
        for attribute in data.attributes:
            for epsilon in sorted(set(table["epsilon"]), reverse=True):
                where = {"on": on, "attribute": attribute, "rule": "min_gap", "epsilon": epsilon}
                at = "without privacy" if epsilon == PLAIN else f"at epsilon {epsilon:g}"
                rows = lambda per_group, where=where: tables.table_of_arms(
                    table, part.arms, part_name=part.name, per_group=per_group, **where
                )
                own_ones, pooled = rows(True), rows(False)
                shown = (
                    tables.beside(own_ones, printed, "Cardiomegaly", part.arms)
                    if epsilon == PLAIN
                    else tables.markdown(own_ones)
                )
                heading = f"## {name}: {attribute}, {at}, thresholds"
                told.say(f"{heading} per subgroup, as printed", shown)
                same = own_ones.equals(pooled)
                told.say(f"{heading} one for all", SAME if same else tables.markdown(pooled))
    told.say(
        "~: ERM's own gap is within what chance gives in 95 %, so FATE divides by noise. Printed "
        "rows: cardiomegaly on CheXpert, mean ± SD of five models, thresholds fitted on training "
        "images; all other targets stand in experiments/arms/published.csv.",
        MISPRINTS,
    )


def table_3(told: page.Told, table: pd.DataFrame, part: Part, data: Data) -> None:
    """Adds table 3: rules of thresholds on FairREAD and on ERM, pooled and per subgroup."""
    few = [arm for arm in part.arms if arm.name in ("erm", "fairread", "published")]
    for attribute in data.attributes:
        for epsilon in sorted(set(table["epsilon"]), reverse=True):
            at = "without privacy" if epsilon == PLAIN else f"at epsilon {epsilon:g}"
            rules = tables.table_of_rules(
                table, few, RULES, attribute=attribute, on=page.CORRELATED, epsilon=epsilon
            )
            told.say(f"## Table 3, rules of thresholds: {attribute}, {at}", tables.markdown(rules))
    printed = published("fairread-3").pivot(index="method", columns="measure", values="value")
    told.say(
        "Printed, FairREAD per subgroup, mean of four targets: "
        + "; ".join(
            f"{rule} accuracy {row['accuracy']:.3f}, delta-EO {row['delta-EO']:.3f}, FATE "
            f"{row['FATE (EO)']:.3f}"
            for rule, row in printed.iterrows()
        )
        + "."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], make, OUT, pathlib.Path(__file__).parent / "results"))
