"""What each part of a recipe for private networks does to the skin lesions' ResNet9.

    python -m experiments.e03_dp_classifier.recipe --out runs/derm_recipe --seeds 1,2,3 \
        --config.data.root=DIR

Trains `configs/derm_resnet.py` as it is, and with one change at a time (ARMS), at one epsilon on
one fold, and writes recipe.csv and recipe.md into --out: AUROC on validation, by which settings may
be chosen, and on test; and what they cost together. Runs that are finished are skipped and an
unfinished one is resumed, so the same command again continues; `--arms` takes some of them.
Overrides go to every run.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Sequence

import pandas as pd

from experiments.e03_dp_classifier import grid, grid_joint
from jaxfair import files
from jaxfair.engine.compiling import keep_compilations
from jaxfair.errors import InputError, nearest
from jaxfair.fairness.metrics import auroc
from jaxfair.run.log import progress_bar

CONFIG = "configs/derm_resnet.py"
CONSTANT = ("optim.decay_steps=0",)
SGD = (*CONSTANT, "optim.name=sgd", "optim.momentum=0.0", "optim.unit_normed=True")
ARMS: dict[str, tuple[str, ...]] = {
    "as it was": (),
    "no augmentation": ("augment.flip=0.0", "augment.quarter_turns=False"),
    "4 views": ("method.multiplicity=4",),
    "16 views": ("method.multiplicity=16",),
    "standardised": ("method.standardise=True",),
    "unscaled norms": ("method.norm=unscaled",),
    "ema with warm-up": ("optim.ema_decay=0.99", "optim.ema_warm_up=True"),
    "no average": ("optim.average=none",),
    "constant rate": CONSTANT,
    "sgd, rate 1": (*SGD, "optim.learning_rate=1.0"),
    "sgd, rate 2": (*SGD, "optim.learning_rate=2.0"),
    "512 lesions": ("train.expected_batch_size=512",),
    "1024 lesions": ("train.expected_batch_size=1024",),
    "head refit": ("mitigation.name=refit_head", "mitigation.share=0.2"),
}  # fmt: skip
"""What differs from the config, as overrides, by the name of the arm."""


def run(
    arms: Sequence[str],
    seeds: Sequence[int],
    fold: int,
    epsilon: float,
    out: pathlib.Path,
    overrides: Sequence[str],
) -> None:
    """Trains what is missing, then writes the table of every finished run under `out`."""
    cells = [(arm, grid.Cell(epsilon, fold, seed)) for seed, arm in itertools.product(seeds, arms)]
    with progress_bar(len(cells), what="recipe", unit="run") as bar:
        for arm, cell in cells:
            changes = [f"--config.{change}" for change in ARMS[arm]]
            config = grid.config_of(cell, CONFIG, [*overrides, *changes])
            grid.train_cell(config, out / files.slug(arm), cell.name)
            bar.update()
            write_table(out)


def write_table(out: pathlib.Path) -> None:
    """Writes recipe.csv, a row for each run, and recipe.md, a row for each arm."""
    rows = pd.DataFrame(
        {"arm": arm, "run": path.parent.name, **_levels(path)}
        for arm in ARMS
        for path in sorted((out / files.slug(arm)).glob("runs/*/predictions.parquet"))
    )
    files.write_table(out / "recipe.csv", rows.round(4))
    told = [one for arm in ARMS for one in grid.statements(out / files.slug(arm))]
    joint = grid_joint.markdown(grid_joint.joint_table(told))
    files.write_text(out / "recipe.md", f"{_markdown(rows)}\nTogether they cost:\n\n{joint}\n")


def _levels(path: pathlib.Path) -> dict[str, float]:
    table = pd.read_parquet(path)
    parts = {name: table[table["split"] == name] for name in ("validation", "test")}
    return {name: float(auroc(p["y_true"].to_numpy(), p["y_score"].to_numpy()))
            for name, p in parts.items()}  # fmt: skip


def _markdown(rows: pd.DataFrame) -> str:
    lines = ["| change | runs | AUROC on validation | on test |", "|---|---|---|---|"]
    for arm, part in rows.groupby("arm", sort=False):
        shown = [_shown(part[name]) for name in ("validation", "test")]
        lines.append(f"| {arm} | {len(part)} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _shown(values: pd.Series) -> str:
    spread = f" ({values.min():.3f} to {values.max():.3f})" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 0, or 2 for refused input."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--arms", default=";".join(ARMS), help="names with semicolons; else all")
    parser.add_argument("--seeds", default="1,2,3", help="with commas")
    parser.add_argument("--fold", default=0, type=int)
    parser.add_argument("--epsilon", default=8.0, type=float, help="inf for no privacy")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    chosen, overrides = parser.parse_known_args(list(argv))
    arms = chosen.arms.split(";")
    keep_compilations()
    try:
        for arm in arms:
            if arm not in ARMS:
                known = ", ".join(ARMS)
                raise InputError(f"{arm!r} is no arm; known are {known}.{nearest(arm, ARMS)}")
        seeds = [int(seed) for seed in chosen.seeds.split(",")]
        run(arms, seeds, chosen.fold, chosen.epsilon, chosen.out, overrides)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(chosen.out / "recipe.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
