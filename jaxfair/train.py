"""Trains one config: `python -m jaxfair.train --config configs/rsna_fae.py`.

The order: check the config and find the noise (no data is touched), claim the folder, open
the data, build the step, begin or replay; then for every block of steps pay first, train
after, and save; at the end write the statement, forget the secret, evaluate and report.
"""

import datetime
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxfair import checkpoint, dryrun, evaluate, files, report
from jaxfair.checkpoint import Checkpoint
from jaxfair.config import (
    Settings,
    parse_command,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.data.dataset import Dataset, open_dataset
from jaxfair.data.loader import prefetch
from jaxfair.errors import InputError
from jaxfair.features import training_fields
from jaxfair.feed import Feed, make_population
from jaxfair.mesh import make_mesh, put_replicated
from jaxfair.methods.catalog import make_method
from jaxfair.optim import make_optimizer
from jaxfair.privacy.ledger import BudgetExceeded, Ledger
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import Secret
from jaxfair.privacy.statement import COVERED
from jaxfair.runfolder import RunFolder, code_digest
from jaxfair.runlog import MetricsLog, environment, progress_bar
from jaxfair.step import DEFAULT_MICROBATCH, Step, TrainState, make_step

__all__ = ["main", "run"]

_STAGE = "train"


class Job(NamedTuple):
    """One training: what is asked for, on what data and devices, and where it goes."""

    settings: Settings
    plan: PrivacyPlan
    dataset: Dataset
    unit: str
    mesh: Mesh
    microbatch: int
    folder: RunFolder
    ledger: Ledger
    secret: Secret
    progress: bool


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
    """
    settings, folder = settings_from_config(config), RunFolder(pathlib.Path(workdir))
    plan = plan_from_settings(settings)
    folder.claim(config.to_dict())
    if not folder.trained():
        job = _open_job(settings, plan, folder, make_mesh(num_devices), recharge, progress)
        state = _train(job)
        files.write_json(folder.privacy, _statement(job, int(state.step)))
        folder.forget_secret()
    evaluate.run(config, workdir, with_images=with_images, progress=progress)
    report.run([workdir], workdir, with_images=with_images)
    return folder


def _open_job(
    settings: Settings,
    plan: PrivacyPlan,
    folder: RunFolder,
    mesh: Mesh,
    recharge: bool,
    progress: bool,
) -> Job:
    """Opens the data, the ledger and the secret, and checks that the secret is this run's."""
    dataset = open_dataset(settings.data, progress=progress)
    unit = settings.dp.unit or ("patient" if dataset.patient_ids_known else "image")
    if recharge:
        folder.forget_secret()
    secret = plan.open_secret(
        folder.secret,
        seed=settings.seed,
        insecure_seed=settings.dp.insecure_seed,
        may_create=recharge or not folder.ledger.exists(),
    )
    microbatch = settings.dp.microbatch or DEFAULT_MICROBATCH
    ledger = plan.open_ledger(folder.ledger)
    job = Job(settings, plan, dataset, unit, mesh, microbatch, folder, ledger, secret, progress)
    env = environment([f"{device.platform} {device.device_kind}" for device in mesh.devices.flat])
    folder.check_fingerprint(secret, _fingerprint_parts(job, env))
    files.write_json(folder.env, env)
    return job


def _train(job: Job) -> TrainState:
    """Builds the step and the feed, restores what there is, and loops to the end."""
    settings, plan, mesh = job.settings, job.plan, job.mesh
    method = make_method(settings.method_name, settings.method)
    params, frozen = method.init(jax.random.key(settings.seed), job.dataset.spec)
    frozen = put_replicated(mesh, frozen)
    optimizer = make_optimizer(settings.optim)
    step = make_step(method, plan, optimizer, mesh, microbatch=job.microbatch)
    state = put_replicated(mesh, _begin_or_resume(job, step, params))
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
    return _loop(job, step, state, frozen, feed)


def _loop(job: Job, step: Step, state: TrainState, frozen: Any, feed: Feed) -> TrainState:
    """Pays for a block of steps, trains it and saves; until all steps or the budget are done."""
    begun, every = int(state.step), job.settings.train.checkpoint_every
    log = MetricsLog(job.folder.metrics, after_step=begun)
    with progress_bar(
        job.plan.steps, initial=begun, what="training", hidden=not job.progress
    ) as bar:
        for first in range(begun, job.plan.steps, every):
            count = min(every, job.plan.steps - first)
            try:
                epsilon = _pay(job, first, count)
            except BudgetExceeded as error:
                print(error, file=sys.stderr)
                break
            bar.set_postfix_str(job.plan.progress(epsilon))
            for chunk, randomness, is_last in prefetch(feed.chunks(first, count)):
                state, released = step.update(state, frozen, chunk, randomness, is_last)
                bar.update(int(state.step) - bar.n)
            public = {name: float(value) for name, value in released.items()}
            checkpoint.save(job.folder.checkpoints, _kept(state), job.ledger)
            rate = bar.format_dict["rate"]
            log.write(int(state.step), epsilon=epsilon, steps_per_second=rate, **public)
    return state


def _pay(job: Job, first: int, count: int) -> float | None:
    return job.plan.charge(
        job.ledger,
        stage=_STAGE,
        population=job.dataset.population,
        draws=job.secret.tag("draws", ""),
        first_step=first,
        steps=count,
    )


def _begin_or_resume(job: Job, step: Step, params: Any) -> TrainState:
    state = step.init(params)
    found = checkpoint.restore(job.folder.checkpoints, _kept(state), job.ledger)
    if found is None:
        return state
    number = np.int32(found.step)
    return state._replace(params=found.params, opt_state=found.opt_state, step=number)


def _kept(state: TrainState) -> Checkpoint:
    return Checkpoint(state.params, state.opt_state, int(state.step))


def _fingerprint_parts(job: Job, env: dict[str, Any]) -> dict[str, str]:
    """What has to be equal for a replay to be bit-equal (protocol P6)."""
    return {
        "data": job.dataset.digest,
        "config": job.folder.config.read_text(),
        "code": code_digest(),
        "versions": f"{env['python']} {env['versions']}",
        "devices": f"{env['devices']} {env['usable_cpus']}",
        "clipping": f"{job.plan.clipping} {job.microbatch}",
        "place of the secret": job.secret.identity,
    }


def _statement(job: Job, steps: int) -> dict[str, Any]:
    """Returns privacy.json: what is promised, to whom, and by what."""
    private, source = job.plan.private, job.secret.source
    grade = {"os": "private", "insecure_seed": "research"}[source] if private else "none"
    return job.plan.statement(job.ledger, steps) | {
        "unit": job.unit,
        "covered": COVERED.format(unit=job.unit),
        "population": job.dataset.population,
        "data": job.dataset.data,
        "selection": job.dataset.selection,
        "noise_source": source if private else None,
        "grade": grade,
        "seed": job.settings.seed,
        "config_digest": files.json_digest(json.loads(job.folder.config.read_text())),
    }


def _define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir", None, "folder of the run; an unfinished one is resumed", flag_values=values
    )
    flags.DEFINE_integer("devices", None, "how many devices to use", flag_values=values)
    flags.DEFINE_bool("with-images", False, "allow images in the report", flag_values=values)
    flags.DEFINE_bool("dry-run", False, "print the plan and touch no data", flag_values=values)
    flags.DEFINE_bool(
        "recharge", False, "resume with a fresh secret and pay again", flag_values=values
    )


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status: 0, 2 for refused input, 130 if interrupted."""
    try:
        config, values = parse_command(argv, _define_flags)
        if values["dry-run"].value:
            print(dryrun.describe(config, num_devices=values["devices"].value))
            return 0
        return _run_command(config, values, list(argv))
    except InputError as error:
        print(error, file=sys.stderr)
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
            with_images=values["with-images"].value,
            recharge=values["recharge"].value,
        )
    except KeyboardInterrupt:
        print(f"\nInterrupted. To resume this run: {resume}", file=sys.stderr)
        return 130
    print(f"Report: {folder.report}")
    return 0


def _default_workdir(config: ConfigDict) -> str:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"runs/{config.name}-{now}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
