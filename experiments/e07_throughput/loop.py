"""What a training run waits for, and what it compiles: `python loop.py --out FILE`.

Phantom runs train a few steps each, with and without privacy: the thesis's feature
autoencoder on cached features, and a ResNet9 that reads its images from the prepared store in
every step. A step here has all that a step of a run has: the draw, the batch, the sum, the
noise and the optimiser. The device waits while the loop asks the loader for a batch that is
not there yet.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import jax

from jaxfair import train
from jaxfair.benchmark import results
from jaxfair.config import load_config
from jaxfair.engine import assembly

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAE = {
    "method.hidden_dims": (100, 150, 200, 300),
    "data.phantom.n_images": 800,
    "data.phantom.pixels": 128,
    "dp.microbatch": 0,  # sought, and what is compiled after the search is counted
}
CLASSIFIER = {"dp.microbatch": 0}
RUNS = {  # name of the row: config, overrides
    "fae": ("rsna_fae.py", FAE),
    "fae, no privacy": ("rsna_fae.py", FAE | {"dp.enabled": False}),
    "resnet9": ("cxr14_resnet.py", CLASSIFIER),
    "resnet9, no privacy": ("cxr14_resnet.py", CLASSIFIER | {"dp.enabled": False}),
}


class Watch:
    """Stands between the loop of `train` and its loader and step, and looks at the clock."""

    def __init__(self) -> None:
        self.asked, self.given, self.delivery = [], [], None
        self.prefetch, self.make_delivery = assembly.prefetch, assembly.make_delivery

    def watched_prefetch(self, items):
        source = self.prefetch(items)
        while True:
            self.asked.append(time.perf_counter())
            try:
                item = next(source)
            except StopIteration:
                return
            self.given.append(time.perf_counter())
            yield item

    def watched_delivery(self, *arguments):
        self.delivery = self.make_delivery(*arguments)
        return self.delivery

    def row(self) -> dict:
        """The first step compiles and is left out; the loop ends when it asks in vain."""
        waits = [g - a for a, g in zip(self.asked[1:], self.given[1:])]
        wall = self.asked[-1] - self.asked[1]
        return {
            "steps": len(self.given),
            "seconds_per_step": wall / len(waits),
            "waiting_share": sum(waits) / wall,
            "compiles_of_the_step": self.delivery.update._cache_size(),
        }


def measure(name: str, steps: int, home: str) -> dict:
    """Trains one run in an own folder, without evaluation, and returns its row."""
    file, overrides = RUNS[name]
    config = load_config(f"{ROOT}/configs/{file}:phantom")
    overrides = overrides | {"train.steps": steps, "train.checkpoint_every": steps}
    with config.unlocked():
        config.data.root = f"{home}/data"
        config.update_from_flattened_dict(overrides)
    watch, evaluate, report = Watch(), train.evaluate.run, train.report.run
    assembly.prefetch, assembly.make_delivery = watch.watched_prefetch, watch.watched_delivery
    train.evaluate.run = train.report.run = lambda *a, **k: None
    try:
        folder = train.run(config, f"{home}/{name}", progress=False)
    finally:
        assembly.prefetch, assembly.make_delivery = watch.prefetch, watch.make_delivery
        train.evaluate.run, train.report.run = evaluate, report
    found = json.loads(folder.microbatch.read_text())
    return {
        "work": name,
        "config": f"{file}:phantom",
        "load": os.getloadavg()[0],
        **found,
        **watch.row(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    given = parser.parse_args()
    devices = [f"{d.device_kind} ({d.platform})" for d in jax.devices()]
    environment = results.environment(devices)
    with tempfile.TemporaryDirectory() as home:
        for name in given.runs:
            row = measure(name, given.steps, home)
            print(row, flush=True)
            results.write(given.out, {"environment": environment, "rows": [row]})


if __name__ == "__main__":
    main()
