"""What each leaf's norms and sum should cost on a GPU, by the static cost rule: no GPU is needed.

    python experiments/e07_throughput/predicted.py --out FILE.json

From shapes alone, with the ways that a GPU takes. The rates are those of `sums/machines.py`, which
come from one trace of an H100. `python -m jaxfair.benchmark --config configs/throughput.py:gpu
--explain --out FILE` on a card puts what was measured beside it.
"""

import argparse
import pathlib
from unittest import mock

import jax

from jaxfair import files
from jaxfair.benchmark.workload import make_workload
from jaxfair.config import load_config
from jaxfair.models import layers
from jaxfair.privacy.sums import batched, costs, formats, machines, ways

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKS = ("fae", "resnet18_224")


def predicted(config, name: str, precision: str) -> list[dict]:
    """Returns a row for each leaf of one work, milliseconds of its whole batch."""
    form, spec, gpu = formats.FORMATS[precision], config.works[name], machines.MACHINES["gpu"]
    with mock.patch.object(layers, "GRADIENTS_BY_PATCHES", ()):  # as on a GPU
        work = make_workload(spec, rows=1, precision="float32")
        example = jax.tree.map(lambda x: x[0], work.chunk.examples)
        loss = lambda p, e, key: work.method.loss(p, work.frozen, e, key)[0]
        rule = batched.rule_of(form)
        leaves = ways.choose_ways(loss, work.params, example, jax.random.key(0), rule).leaves
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(work.params)]
    rows = []
    for path, leaf in zip(paths, leaves, strict=True):
        entries = 1
        for size in leaf.shape:
            entries *= size
        took = costs.leaf_seconds(leaf.way, leaf.sites, entries, spec.batch, form, gpu)
        shape = leaf.sites[0][:4] if leaf.sites else (None,) * 4
        shared = {"work": name, "precision": precision, "batch": spec.batch, "leaf": path}
        row = shared | {"way": leaf.way, "predicted_ms": 1e3 * took}
        rows.append(row | dict(zip(("groups", "positions", "rows", "cols"), shape, strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    config = load_config(f"{ROOT}/configs/throughput.py:gpu")
    rows = [row for name in WORKS for row in predicted(config, name, "tf32")]
    files.write_json(out, {"source": machines.MACHINES["gpu"].source, "rows": rows})
    for row in rows:
        print(row["work"], row["leaf"], row["way"], f"{row['predicted_ms']:.3f} ms")


if __name__ == "__main__":
    main()
