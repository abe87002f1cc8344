"""One way of one work in its own process: prints a line when ready, then runs on command.

    python worker.py WAY WORK ROWS CLIP

Each line on stdin runs one gradient sum and prints `{"wall": s, "cpu": s}`; at the end of
stdin it prints its peak memory. `run.py` starts these and takes turns between them.
"""

import functools
import importlib.util
import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[3]


def make_torch(way: str, work: str, rows: int, clip: float) -> tuple[Callable, int]:
    """Returns (a step without noise, number of parameters) of torch or Opacus."""
    import torch
    import torch_models

    model, criterion, x, y = torch_models.make(work, rows)
    model.train()
    count = sum(p.numel() for p in model.parameters())
    if way == "torch":

        def plain() -> None:
            model.zero_grad()
            criterion(model(x), y).backward()

        return plain, count
    return _make_opacus(way, model, criterion, x, y, clip, torch), count


def _make_opacus(way, model, criterion, x, y, clip, torch) -> Callable:
    from opacus import GradSampleModule
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    ghost = way == "opacus-ghost"
    if ghost:
        wrapped = GradSampleModuleFastGradientClipping(
            model, loss_reduction="sum", max_grad_norm=clip, use_ghost_clipping=True
        )
    else:
        functorch = way == "opacus-functorch"
        wrapped = GradSampleModule(model, loss_reduction="sum", force_functorch=functorch)
    kind = DPOptimizerFastGradientClipping if ghost else DPOptimizer
    optimizer = kind(
        torch.optim.SGD(wrapped.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=len(x),
        loss_reduction="sum",
    )
    if ghost:
        criterion = DPLossFastGradientClipping(wrapped, optimizer, criterion, loss_reduction="sum")

    def step() -> None:
        optimizer.zero_grad()
        criterion(wrapped(x), y).backward()
        if not ghost:
            optimizer.clip_and_accumulate()

    return step


def make_jax(way: str, work: str, rows: int, clip: float) -> tuple[Callable, int]:
    """Returns (a compiled sum of gradients, number of parameters) of jaxfair or jax_privacy."""
    import jax
    import jax.numpy as jnp

    sys.path.insert(0, str(ROOT))
    from jaxfair.benchmark.workload import make_workload
    from jaxfair.privacy import clipping, fast

    made = make_workload(_config().works[work], rows=rows, precision="float32")
    loss = lambda p, example, key: made.loss_fn(p, made.frozen, example, key)
    mask = jnp.ones(rows, bool)
    if way == "jax-privacy":
        from jax_privacy import clipping as peer

        clipped = peer.clipped_grad(
            loss, l2_clip_norm=clip, batch_argnums=(1, 2), keep_batch_dim=False
        )
        sums = lambda params, batch, keys, mask: clipped(params, batch, keys)
    else:
        ways = {
            "jaxfair": clipping.summed_grads,
            "jaxfair-vmap": functools.partial(clipping.clipped_sum, l2_clip_norm=clip),
            "jaxfair-fast": functools.partial(fast.clipped_sum, l2_clip_norm=clip),
        }
        sums = functools.partial(ways[way], loss)
    call, arguments = jax.jit(sums), (made.params, made.batch, made.keys, mask)
    count = sum(p.size for p in jax.tree.leaves(made.params))
    return lambda: jax.block_until_ready(call(*arguments)), count


def _config():
    spec = importlib.util.spec_from_file_location("throughput", ROOT / "configs/throughput.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def main() -> None:
    way, work, rows, clip = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    make = make_jax if way.startswith("jax") else make_torch
    begin = time.perf_counter()
    step, parameters = make(way, work, rows, clip)
    step()
    ready = {"parameters": parameters, "start_seconds": time.perf_counter() - begin}
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(taken), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"peak_process_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
