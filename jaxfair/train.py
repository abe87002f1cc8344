"""Trains one config: `python -m jaxfair.train --config configs/rsna_fae.py`.

The order: check the config and find the noise (no data is touched), claim the folder, open
the data, build the step, begin or replay; then for every block of steps pay first, train
after, and save; at the end write the statement, forget the secret, evaluate and report.
"""

import contextlib
import datetime
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxfair import dryrun, evaluate, files, report
from jaxfair.config import (
    Settings,
    parse_command,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.data.dataset import open_dataset
from jaxfair.data.loader import prefetch
from jaxfair.engine.features import training_fields
from jaxfair.engine.feed import Feed, make_population
from jaxfair.engine.mesh import (
    first_then_others,
    is_first_host,
    join_hosts,
    leave_hosts,
    make_mesh,
    put_replicated,
)
from jaxfair.engine.microbatch import fastest as fastest_microbatch
from jaxfair.engine.optim import make_optimizer
from jaxfair.engine.scan import Calls, make_calls
from jaxfair.engine.step import DEFAULT_MICROBATCH, Step, TrainState, check_isolation, make_step
from jaxfair.errors import InputError
from jaxfair.job import Job, close_job, open_job, pay
from jaxfair.methods.base import Method
from jaxfair.privacy.ledger import BudgetExceeded
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.run import checkpoint
from jaxfair.run.checkpoint import Checkpoint
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import Board, MetricsLog, progress_bar
from jaxfair.start import first_variables

__all__ = ["main", "run"]


def run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    num_devices: int | None = None,
    with_images: bool = False,
    recharge: bool = False,
    progress: bool = True,
) -> RunFolder:
    """Trains, or resumes, the run of `config` in `workdir`, evaluates it and writes the report.

    Args:
      num_devices: how many devices to use; None for all.
      with_images: allow images in the report of real data.
      recharge: continue a run that cannot be replayed with a fresh secret; the steps since
        its last checkpoint are paid for again.
      progress: show progress bars.

    With several hosts (`mesh.join_hosts`) they train together on one shared `workdir`, and
    `python -m jaxfair.evaluate` scores the run afterwards.
    """
    settings, folder = settings_from_config(config), RunFolder(pathlib.Path(workdir))
    plan = plan_from_settings(settings)
    mesh, progress = make_mesh(num_devices), progress and is_first_host()
    folder.check_claim(config.to_dict())
    if not folder.trained():
        method, params, frozen = _model(settings, plan, mesh)
        dataset = first_then_others(lambda: open_dataset(settings.data, progress=progress))
        first_then_others(lambda: folder.claim(config.to_dict()))
        make = _step_factory(settings, plan, method, mesh)
        size = _microbatch(settings, folder, mesh, make, method, params, frozen)
        job = open_job(settings, plan, dataset, folder, mesh, size, recharge, progress)
        state = _train(job, make(size), method, params, frozen)
        first_then_others(lambda: close_job(job, int(state.step)))
    if jax.process_count() > 1:  # scoring needs no more than one host
        return folder
    evaluate.run(config, workdir, with_images=with_images, progress=progress)
    report.run([workdir], workdir, with_images=with_images)
    return folder


def _model(settings: Settings, plan: PrivacyPlan, mesh: Mesh) -> tuple[Method, Any, Any]:
    """Returns the Method, and its parameters and frozen part on all devices.

    A private plan is refused here for a Method that couples examples.
    """
    method, params, frozen = first_variables(settings)
    check_isolation(method, plan, params, frozen, settings.data.spec)
    return method, *put_replicated(mesh, (params, frozen))


def _step_factory(
    settings: Settings, plan: PrivacyPlan, method: Method, mesh: Mesh
) -> Callable[[int], Step]:
    """Returns `(microbatch) -> Step`."""
    optimizer = make_optimizer(settings.optim)
    return lambda size: make_step(method, plan, optimizer, mesh, microbatch=size)


def _microbatch(
    settings: Settings,
    folder: RunFolder,
    mesh: Mesh,
    make: Callable[[int], Step],
    method: Method,
    params: Any,
    frozen: Any,
) -> int:
    """Returns the config's microbatch, the one found when the run began, or a new find."""
    if settings.dp.microbatch or jax.process_count() > 1:  # hosts would not agree on a clock
        return settings.dp.microbatch or DEFAULT_MICROBATCH
    if not folder.microbatch.exists():
        expected = settings.train.expected_batch_size
        found = fastest_microbatch(
            make, method, mesh, params, frozen, settings.data.spec, expected_batch_size=expected
        )
        files.write_json(folder.microbatch, {"microbatch": found})
    return int(json.loads(folder.microbatch.read_text())["microbatch"])


def _train(job: Job, step: Step, method: Method, params: Any, frozen: Any) -> TrainState:
    """Restores what there is, builds the feed, and loops to the end."""
    plan, mesh = job.plan, job.mesh
    state = _begin_or_resume(job, step, params)
    population = make_population(*job.dataset.units(job.unit))
    rows = np.concatenate([np.empty(0, np.int64), *population.rows])
    feed = Feed(
        secret=job.secret,
        population=population,
        fields=training_fields(method, frozen, job.dataset, rows, progress=job.progress),
        mesh=mesh,
        sampling_prob=plan.sampling_prob,
        num_leaves=len(jax.tree.leaves(params)),
        chunk_size=job.microbatch * mesh.size,
    )
    return _loop(job, make_calls(step, feed, frozen), state)


def _loop(job: Job, calls: Calls, state: TrainState) -> TrainState:
    """Pays for a block of steps, trains it and saves; until all steps or the budget are done."""
    begun, every = int(state.step), job.settings.train.checkpoint_every
    bar = progress_bar(job.plan.steps, initial=begun, what="training", hidden=not job.progress)
    with contextlib.closing(_open_log(job, begun)) as log, bar:
        for first in range(begun, job.plan.steps, every):
            count = min(every, job.plan.steps - first)
            try:
                epsilon = pay(job, first, count)
            except BudgetExceeded as error:
                print(error, file=sys.stderr)
                break
            bar.set_postfix_str(job.plan.progress(epsilon))
            for arguments in prefetch(calls.arguments(first, count)):
                state, released = calls.update(state, calls.frozen, *arguments)
                bar.update(int(state.step) - bar.n)
            public = {name: float(value) for name, value in released.items()}
            log.write(int(state.step), epsilon=epsilon, **public)
            checkpoint.save(job.folder.checkpoints, _kept(state), job.ledger)
    return state


def _open_log(job: Job, begun: int) -> MetricsLog:
    writes, board = is_first_host(), None
    if writes and job.settings.train.tensorboard:
        board = Board(job.folder.board, private=job.plan.private, after_step=begun)
    return MetricsLog(job.folder.metrics, after_step=begun, writes=writes, board=board)


def _begin_or_resume(job: Job, step: Step, params: Any) -> TrainState:
    state = put_replicated(job.mesh, step.init(params))
    found = checkpoint.restore(job.folder.checkpoints, _kept(state), job.ledger)
    if found is None:
        return state
    number = put_replicated(job.mesh, jnp.asarray(found.step, state.step.dtype))
    return state._replace(params=found.params, opt_state=found.opt_state, step=number)


def _kept(state: TrainState) -> Checkpoint:
    return Checkpoint(state.params, state.opt_state, int(state.step))


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "folder of the run; an unfinished one is resumed", flag_values=values
    )
    flags.DEFINE_integer("devices", None, "how many devices to use", flag_values=values)
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of the first of several hosts, or auto", flag_values=values
    )
    flags.DEFINE_integer("hosts", None, "how many hosts there are", flag_values=values)
    flags.DEFINE_integer("host", None, "which host this is, from 0", flag_values=values)
    flags.DEFINE_bool("with-images", False, "allow images in the report", flag_values=values)
    flags.DEFINE_bool("dry-run", False, "print the plan and touch no data", flag_values=values)
    flags.DEFINE_bool(
        "recharge", False, "resume with a fresh secret and pay again", flag_values=values
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status: 0, 2 for refused input, 130 if interrupted."""
    _keep_compilations()
    try:
        config, values = parse_command(argv, _define_flags)
        if values["coordinator"].value:
            hosts, host = values["hosts"].value, values["host"].value
            join_hosts(values["coordinator"].value, hosts, host)
        if values["dry-run"].value:
            print(dryrun.describe(config, num_devices=values["devices"].value))
            return 0
        return _run_command(config, values, list(argv))
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        leave_hosts(2)
        return 2


def _run_command(config: ConfigDict, values: flags.FlagValues, argv: list[str]) -> int:
    workdir = values["workdir"].value or _default_workdir(config)
    if RunFolder(pathlib.Path(workdir)).finished():
        print(f"{workdir} holds a finished run; its report is {workdir}/report.md.")
        return 0
    named = values["workdir"].present
    again = [*argv[1:]] if named else [*argv[1:], f"--workdir={workdir}"]
    resume = shlex.join(["python", "-m", "jaxfair.train", *again])
    print(f"To resume this run: {resume}")
    try:
        folder = run(
            config,
            workdir,
            num_devices=values["devices"].value,
            with_images=bool(values["with-images"].value),
            recharge=bool(values["recharge"].value),
        )
    except KeyboardInterrupt:
        print(f"\nInterrupted. To resume this run: {resume}", file=sys.stderr)
        return 130
    if folder.report.exists():
        print(f"Report: {folder.report}")
    else:
        print(f"Trained. To score it: python -m jaxfair.evaluate --workdir={workdir}")
    return 0


def _keep_compilations() -> None:
    """Compiled steps are kept on disk, so that a run that starts again need not wait."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", f"{cache}/jaxfair/xla")


def _default_workdir(config: ConfigDict) -> str:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"runs/{config.name}-{now}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
