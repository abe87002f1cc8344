"""One way of one work in its own process: prints a line when ready, then runs on command.

    python worker.py WAY WORK ROWS CLIP PRECISION

PRECISION is float32, tf32 or bfloat16 (the last two want a GPU, and Opacus takes no bfloat16).
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


def make_torch(way: str, work: str, rows: int, clip: float, precision: str) -> tuple:
    """Returns (a step without noise, number of parameters, device) of torch or Opacus."""
    import torch
    import torch_models

    gpu = torch.cuda.is_available()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    model, criterion, x, y = torch_models.make(work, rows)
    if gpu:
        x, y, model, criterion.taps = x.cuda(), y.cuda(), model.cuda(), criterion.taps.cuda()
    model.train()
    count = sum(p.numel() for p in model.parameters())
    if way == "torch":
        low = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16")

        def step() -> None:
            model.zero_grad()
            with low:
                output = model(x)
            criterion(output.float(), y).backward()

    elif precision == "bfloat16":
        raise SystemExit("Opacus is measured in float32 and tf32 alone.")
    else:
        step = _make_opacus(way, model, criterion, x, y, clip, torch)

    def finished() -> None:
        step()
        if gpu:
            torch.cuda.synchronize()

    return finished, count, torch.cuda.get_device_name() if gpu else "cpu"


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


def make_jax(way: str, work: str, rows: int, clip: float, precision: str) -> tuple:
    """Returns (a compiled sum of gradients, number of parameters, device) of jaxfair or a peer."""
    import jax
    import jax.numpy as jnp

    sys.path.insert(0, str(ROOT))
    from jaxfair.benchmark.workload import PRECISIONS, make_workload
    from jaxfair.engine.chunk import unit_keys
    from jaxfair.privacy.sums import choice, clipping

    jax.config.update("jax_default_matmul_precision", PRECISIONS[precision])
    made = make_workload(_config().works[work], rows=rows, precision=precision)
    loss = lambda p, example, key: made.method.loss(p, made.frozen, example, key)[0]
    batch, keys = made.chunk.examples, unit_keys(made.words, made.chunk.unit_id)
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
            "jaxfair-fast": functools.partial(
                choice.clipped_sum, choice.How("fast", precision), l2_clip_norm=clip
            ),
        }
        sums = functools.partial(ways[way], loss)
    call, arguments = jax.jit(sums), (made.params, batch, keys, mask)
    count = sum(p.size for p in jax.tree.leaves(made.params))
    device = jax.devices()[0].device_kind
    return lambda: jax.block_until_ready(call(*arguments)), count, device


def _config():
    spec = importlib.util.spec_from_file_location("throughput", ROOT / "configs/throughput.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def main() -> None:
    way, work, rows, clip, precision = sys.argv[1:]
    make = make_jax if way.startswith("jax") else make_torch
    begin = time.perf_counter()
    step, parameters, device = make(way, work, int(rows), float(clip), precision)
    step()
    ready = {"parameters": parameters, "device": device}
    ready["start_seconds"] = time.perf_counter() - begin
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
