"""Trains one config: `python -m jaxfair.train --config configs/rsna_fae.py`.

The order: check the config, find the noise and check the network (no data is touched), open
the data, and let the engine train (`engine/trainer.py`: pay first, train after, save); at the
end evaluate and report.
"""

import datetime
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

import jax
from absl import flags
from ml_collections import ConfigDict

from jaxfair import dryrun, evaluate, report
from jaxfair.config import Settings, parse_command, settings_from_config
from jaxfair.data.dataset import open_dataset
from jaxfair.engine.books import Options
from jaxfair.engine.mesh import (
    first_then_others,
    is_first_host,
    join_hosts,
    leave_hosts,
    make_mesh,
)
from jaxfair.engine.trainer import Trainer, open_assembly
from jaxfair.errors import InputError
from jaxfair.run.folder import RunFolder
from jaxfair.start import assembly_of, population_of

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
    folder.check_claim(config.to_dict())
    if not folder.trained():
        options = _options(settings, recharge, progress and is_first_host())
        open_training(config, settings, folder, options, num_devices=num_devices).run()
    if jax.process_count() > 1:  # scoring needs no more than one host
        return folder
    evaluate.run(config, workdir, with_images=with_images, progress=progress)
    report.run([workdir], workdir, with_images=with_images)
    return folder


def open_training(
    config: ConfigDict,
    settings: Settings,
    folder: RunFolder,
    options: Options,
    *,
    num_devices: int | None = None,
) -> Trainer:
    """Opens the training of a config: the network is checked before any data is touched."""
    assembly = assembly_of(settings, make_mesh(num_devices))
    dataset = first_then_others(lambda: open_dataset(settings.data, progress=options.progress))
    return open_assembly(
        assembly,
        population_of(settings, dataset),
        dataset.fields,
        folder.path,
        config=config.to_dict(),
        options=options,
    )


def _options(settings: Settings, recharge: bool, progress: bool) -> Options:
    return Options(
        save_every=settings.train.checkpoint_every,
        microbatch=settings.dp.microbatch,
        seed=settings.seed,
        insecure_seed=settings.dp.insecure_seed,
        recharge=recharge,
        board=settings.train.tensorboard,
        progress=progress,
    )


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
