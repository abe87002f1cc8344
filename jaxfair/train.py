"""Trains one config, evaluates it and writes the report.

    jaxfair train --config rsna_fae:phantom
    jaxfair train --config configs/rsna_fae.py --config.data.root=DIR --config.dp.epsilon=4

A name is one of the configs that ship (`jaxfair configs`), else a file. The same command on
the same `--workdir` resumes a run.

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
from ml_collections import ConfigDict

from jaxfair import dryrun, evaluate, leakage, report
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import Settings, sections, settings_from_config
from jaxfair.data.card import unknown_lines
from jaxfair.engine.books import Options
from jaxfair.engine.compiling import keep_compilations
from jaxfair.engine.mesh import (
    first_then_others,
    is_first_host,
    join_hosts,
    leave_hosts,
    make_mesh,
)
from jaxfair.engine.opening import open_assembly
from jaxfair.engine.stages import ends_of
from jaxfair.engine.trainer import Trainer
from jaxfair.errors import InputError
from jaxfair.files import slug, write_json
from jaxfair.run.folder import RunFolder
from jaxfair.start import assembly_of, check_stages, open_data, population_of

__all__ = ["COMMAND", "main", "run"]


def run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    num_devices: int | None = None,
    with_images: bool = False,
    recharge: bool = False,
    before: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RunFolder:
    """Trains, or resumes, the run of `config` in `workdir`, evaluates it and writes the report.

    Args:
      num_devices: how many devices to use; None for all.
      with_images: allow images in the report of real data.
      recharge: continue a run that cannot be replayed with a fresh secret; the steps since
        its last checkpoint are paid for again.
      before: another run on the same data; the report then begins with what changed since.
      progress: show progress bars.

    With several hosts (`mesh.join_hosts`) they train together on one shared `workdir`, and
    `python -m jaxfair.evaluate` scores the run afterwards.
    """
    settings, folder = settings_from_config(config), RunFolder(pathlib.Path(workdir))
    folder.check_claim(config.to_dict())
    earlier = None if before is None else report.load_run(before).path  # refused before training
    probes = leakage.is_asked(settings)
    if folder.trained():
        first_then_others(folder.forget_secret)  # which a crash may have left behind
    else:
        options = _options(settings, recharge, progress and is_first_host())
        open_training(config, settings, folder, options, num_devices=num_devices).run()
    if jax.process_count() > 1:  # scoring needs no more than one host
        return folder
    evaluate.run(config, workdir, with_images=with_images, progress=progress)
    if probes:
        leakage.run(folder.path, progress=progress)
    if earlier is not None:
        write_json(folder.before, {"run": os.path.relpath(earlier, folder.path)})
    report.run(report.compared(workdir), workdir, with_images=with_images)
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
    ends_of(assembly.method, settings.train.steps)  # refused before data are read
    dataset = first_then_others(lambda: open_data(settings, progress=options.progress))
    check_stages(settings, dataset)
    if options.progress:  # to whoever sits here, and into no file
        groups, unread = settings.data.attributes, dataset.card.get("unread", {})
        for remark in unknown_lines(dataset.manifest, groups, unread) if unread else ():
            print(remark, file=sys.stderr)
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


COMMAND = Command(
    name="train",
    about=__doc__,
    flags=(
        Flag("workdir", str, None, "folder of the run; an unfinished one is resumed"),
        Flag("devices", int, None, "how many devices to use; left out: all"),
        Flag("coordinator", str, None, "HOST:PORT of the first of several hosts, or auto"),
        Flag("hosts", int, None, "how many hosts there are"),
        Flag("host", int, None, "which host this is, from 0"),
        Flag("with-images", bool, False, "allow images of patients in the report"),
        Flag("before", str, None, "a finished run that the report compares this one with"),
        Flag("dry-run", bool, False, "print the plan and touch no data"),
        Flag("compile", bool, False, "with --dry-run: compile the step for its exact memory"),
        Flag("recharge", bool, False, "resume with a fresh secret and pay again"),
    ),
    sections=sections,
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status: 0, 2 for refused input, 130 if interrupted."""
    keep_compilations()
    status = execute(COMMAND, argv, lambda line: _act(line, list(argv)))
    if status == 2:
        leave_hosts(2)
    return status


def _act(line: Line, argv: list[str]) -> int:
    name = settings_from_config(line.config).name
    if not line.flags["coordinator"] and {"hosts", "host"} & set(line.given):
        raise InputError("--hosts and --host go with --coordinator=HOST:PORT of the first host.")
    if line.flags["coordinator"]:
        join_hosts(line.flags["coordinator"], line.flags["hosts"], line.flags["host"])
    if line.flags["dry-run"]:
        devices, compiled = line.flags["devices"], line.flags["compile"]
        print(dryrun.describe(line.config, num_devices=devices, compiled=compiled))
        return 0
    workdir = line.flags["workdir"] or _default_workdir(name)
    if RunFolder(pathlib.Path(workdir)).finished():
        print(f"{workdir} holds a finished run; its report is {workdir}/report.md.")
        return 0
    again = argv[1:] if "workdir" in line.given else [*argv[1:], f"--workdir={workdir}"]
    return _train_or_say_how_to_resume(line, workdir, again)


def _train_or_say_how_to_resume(line: Line, workdir: str, again: list[str]) -> int:
    resume = shlex.join(["python", "-m", "jaxfair.train", *again])
    print(f"To resume this run: {resume}")
    try:
        folder = run(
            line.config,
            workdir,
            num_devices=line.flags["devices"],
            with_images=line.flags["with-images"],
            recharge=line.flags["recharge"],
            before=line.flags["before"],
        )
    except KeyboardInterrupt:
        print(f"\nInterrupted. To resume this run: {resume}", file=sys.stderr)
        return 130
    if folder.report.exists():
        print(f"Report: {folder.report}")
    else:
        print(f"Trained. To score it: python -m jaxfair.evaluate --workdir={workdir}")
    return 0


def _default_workdir(name: str) -> str:
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return f"runs/{slug(name)}-{now}"


if __name__ == "__main__":
    sys.exit(main(sys.argv))
