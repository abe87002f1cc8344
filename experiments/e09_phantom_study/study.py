"""Is a planted gap found, and nothing else? Many phantom seeds, one small plain FAE each.

    make phantom-study
    python experiments/e09_phantom_study/study.py --seeds 50 --workdir runs/phantom-study

Each seed draws its own phantom, trains its own model on cached features and tests the groups
of sex and age as the report does ("flagged": worse than the rest, one-sided, corrected,
standardised to the pooled view mix). Seeds that are done are not run again.
"""

import argparse
import json
import pathlib

import pandas as pd

from jaxfair import files, train
from jaxfair.config import load_config
from jaxfair.fairness.contrasts import group_contrasts
from jaxfair.report import load_run
from jaxfair.run.log import progress_bar

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs" / "rsna_fae.py"
PLANTED = ("sex", "F")
"""Men's opacities are drawn brighter (gap_contrast), so women are the group served worse."""

OVERRIDES = {
    "dp.enabled": False,
    "data.image_size": 64,
    "data.phantom.n_images": 2_000,
    "data.phantom.pixels": 64,
    "data.phantom.gap_group": "M",
    "data.phantom.gap_contrast": 2.5,
    "method.hidden_dims": (25, 50, 75),
    "dp.microbatch": 8,
    "train.steps": 60,
    "train.expected_batch_size": 32,
    "train.checkpoint_every": 60,
}


def one_seed(seed: int, workdir: pathlib.Path) -> pd.DataFrame:
    """Returns the contrasts of one phantom's model."""
    config = load_config(f"{CONFIG}:phantom")
    with config.unlocked():
        config.data.phantom.gap_group, config.data.phantom.gap_contrast = "", 1.0
    config.update_from_flattened_dict(OVERRIDES)
    config.seed = config.data.phantom.seed = seed
    config.data.root = str(workdir / "phantoms")
    folder = workdir / f"seed-{seed}"
    train.run(config, folder, num_devices=1, progress=False)
    run = load_run(folder)
    test = run.predictions[run.predictions["split"] == "test"]
    return group_contrasts(test, ("sex", "age_group"), seed=seed).assign(seed=seed)


def summary(table: pd.DataFrame) -> dict:
    """Returns how often the planted group and any other group was flagged."""
    planted = (table["attribute"] == PLANTED[0]) & (table["group"] == PLANTED[1])
    flagged = table["flagged"].fillna(False).astype(bool)
    seeds = table["seed"].nunique()
    found = int(table[planted & flagged]["seed"].nunique())
    others = int(table[~planted & flagged]["seed"].nunique())
    return {
        "seeds": seeds,
        "planted_group_flagged": found / seeds,
        "any_other_flagged": others / seeds,
        "mean_contrast_of_planted_group": float(table[planted]["difference"].mean()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/phantom-study"))
    arguments = parser.parse_args()
    parts = []
    with progress_bar(arguments.seeds, what="phantom study", unit="seed") as bar:
        for seed in range(arguments.seeds):
            done = arguments.workdir / f"seed-{seed}.csv"
            if not done.exists():
                files.write_table(done, one_seed(seed, arguments.workdir))
            parts.append(pd.read_csv(done))
            bar.update()
    results = pathlib.Path(__file__).parent / "results"
    everything = pd.concat(parts, ignore_index=True)
    files.write_table(results / "contrasts.csv", everything.round(5))
    overrides = {name: str(value) for name, value in OVERRIDES.items()}
    files.write_json(results / "summary.json", summary(everything) | {"overrides": overrides})
    print(json.dumps(summary(everything), indent=2))
