"""Opens the books of a training: the folder and its lock, the secret, the ledger.

They are opened together and in this order, so that nothing is drawn from a secret that is not
this run's, and nothing is paid for in another run's ledger.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxfair import files
from jaxfair.data.loader import Fields
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.mesh import first_then_others, is_first_host
from jaxfair.engine.microbatch import batch_share, fastest
from jaxfair.engine.population import Population
from jaxfair.engine.replay import parts_of_people, parts_of_stages
from jaxfair.errors import InputError
from jaxfair.privacy.ledger import Ledger, read_entries
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import Secret
from jaxfair.run import fingerprint
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import environment

__all__ = ["Books", "Options", "open_books"]


NUMERICS = ("jax_default_matmul_precision", "jax_enable_x64", "jax_threefry_partitionable")
"""Settings of jax by which the same step gives other numbers."""

VARIABLES = (
    "XLA_FLAGS",
    "LIBTPU_INIT_ARGS",
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG",
    "TF_CUDNN_DETERMINISTIC",
)
"""Variables of the environment by which a compiler or a library does."""


class Options(NamedTuple):
    """How a training is run; nothing here changes what is promised.

    Attributes:
      save_every: steps that are paid for, trained and saved together.
      microbatch: examples per device whose gradients are held at once; 0 seeks the fastest,
        once, on made-up data.
      seed: public; keys a plain run.
      insecure_seed: a research seed in place of the operating system's secret; the statement
        then says that the run is not private.
      recharge: continue a run that cannot be replayed with a fresh secret; the steps since its
        last checkpoint are paid for again.
      board: write TensorBoard event files too.
      progress: show progress bars.
    """

    save_every: int = 50
    microbatch: int = 0
    seed: int = 0
    insecure_seed: int | None = None
    recharge: bool = False
    board: bool = False
    progress: bool = True


class Books(NamedTuple):
    """Attributes:
    microbatch: the one that belongs to the folder.
    secret: keys everything random.
    ledger: what was paid.
    leave: gives the folder free for another writer.
    """

    microbatch: int
    secret: Secret
    ledger: Ledger
    leave: Callable[[], None]


def open_books(
    stages: Sequence[Assembly],
    population: Population,
    fields: Fields,
    folder: RunFolder,
    config: Mapping[str, Any],
    options: Options,
) -> Books:
    """Takes the folder for this training and opens its secret and its ledger.

    Args:
      stages: of the training, the first one first.
      fields: readers of the raw examples, which are read where `population` has no digest.

    Raises InputError where the folder is finished, of another config or in use, or where what
    is begun there cannot be replayed.
    """
    if options.save_every < 1:
        raise InputError(f"save_every is {options.save_every}; it must be 1 or more.")
    if options.recharge and options.insecure_seed is not None:
        raise InputError(
            "--recharge needs fresh randomness, and dp.insecure_seed fixes it: the same noise "
            "on other data would cancel. Start a new --workdir."
        )
    _refuse_finished(folder)
    folder.check_claim(config)
    assembly = stages[0]
    with contextlib.ExitStack() as stack:
        if is_first_host():
            folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(folder.locked())
        first_then_others(lambda: _refuse_finished(folder))
        first_then_others(lambda: folder.claim(config))
        first_then_others(lambda: folder.claim_population(population.facts))
        microbatch = _chosen_microbatch(assembly, folder, options)
        secret, ledger = _secret_and_ledger(assembly, folder, options)
        begun = len(ledger) > len(assembly.plan.prior) and not options.recharge
        parts = parts_of_people(population, fields, private=assembly.plan.private)
        parts |= parts_of_stages(stages)
        _check_replay(assembly, microbatch, parts, folder, secret, begun=begun)
        return Books(microbatch, secret, ledger, stack.pop_all().close)


def _refuse_finished(folder: RunFolder) -> None:
    """Asked again under the lock, as a run may end just before it is taken."""
    if folder.trained():
        folder.forget_secret()  # which a crash after the last step may have left behind
        raise InputError(f"{folder.path} holds a finished run; choose another folder.")


def _chosen_microbatch(assembly: Assembly, folder: RunFolder, options: Options) -> int:
    """The microbatch that was asked for, that was found when the run began, or a new find."""
    if options.microbatch or assembly.plan.perturbation:  # a minimum holds no gradients
        return assembly.microbatch
    if jax.process_count() > 1:  # hosts would not agree on a clock
        return batch_share(assembly) or assembly.microbatch
    if not folder.microbatch.exists():
        files.write_json(folder.microbatch, {"microbatch": fastest(assembly)})
    return int(files.read_json(folder.microbatch)["microbatch"])


def _secret_and_ledger(
    assembly: Assembly, folder: RunFolder, options: Options
) -> tuple[Secret, Ledger]:
    fresh = options.recharge or _nothing_is_begun(assembly.plan, folder)
    if fresh and is_first_host():
        folder.forget_secret()
    may_create = fresh or not folder.ledger.exists()
    secret = first_then_others(
        lambda: assembly.plan.open_secret(
            folder.secret,
            seed=options.seed,
            insecure_seed=options.insecure_seed,
            may_create=may_create,
        )
    )
    return secret, assembly.plan.open_ledger(folder.ledger, writes=is_first_host())


def _nothing_is_begun(plan: PrivacyPlan, folder: RunFolder) -> bool:
    """Whether nothing tells what a secret that may lie here was used for: it is drawn anew."""
    return not folder.fingerprint.exists() and len(read_entries(folder.ledger)[0]) <= len(
        plan.prior
    )


def _check_replay(
    assembly: Assembly,
    microbatch: int,
    parts: Mapping[str, str],
    folder: RunFolder,
    secret: Secret,
    *,
    begun: bool,
) -> None:
    """Refuses to resume unless everything that a step reads is what it was when the run began."""
    devices = [f"{d.platform} {d.device_kind}" for d in assembly.mesh.devices.flat]
    env = environment(devices)
    parts = dict(parts) | {
        "config": folder.config.read_text(),
        "code": fingerprint.digest_of_code(),
        "versions": f"{env['python']} {env['versions']}",
        "devices": f"{env['devices']} {env['usable_cpus']}",
        "clipping": f"{assembly.plan.clipping} {microbatch}",
        "numerics": " ".join(f"{name} {jax.config.values[name]}" for name in NUMERICS),
        "environment": " ".join(f"{name}={os.environ.get(name)}" for name in VARIABLES),
        "place of the secret": secret.identity,
    }
    first_then_others(
        lambda: fingerprint.check(folder.fingerprint, secret, parts, may_create=not begun)
    )
    if is_first_host():
        files.write_json(folder.env, env)
