"""Opens the books of a training: the folder and its lock, the secret, the ledger.

They are opened together and in this order, so that nothing is drawn from a secret that is not
this run's, and nothing is paid for in another run's ledger.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxfair import files
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.mesh import first_then_others, is_first_host
from jaxfair.engine.microbatch import fastest
from jaxfair.engine.population import Population
from jaxfair.errors import InputError
from jaxfair.privacy.ledger import Ledger
from jaxfair.privacy.secret import Secret
from jaxfair.run import fingerprint
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import environment

__all__ = ["Books", "Options", "open_books"]


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
    folder: RunFolder,
    config: Mapping[str, Any],
    options: Options,
) -> Books:
    """Takes the folder for this training and opens its secret and its ledger.

    Args:
      stages: all that the training goes through; the first begins it.

    Raises InputError where the folder is finished, of another config or in use, or where what
    is begun there cannot be replayed.
    """
    if folder.trained():
        raise InputError(f"{folder.path} holds a finished run; choose another folder.")
    if options.recharge and options.insecure_seed is not None:
        raise InputError(
            "--recharge needs fresh randomness, and dp.insecure_seed fixes it: the same noise "
            "on other data would cancel. Start a new --workdir."
        )
    folder.check_claim(config)
    assembly = stages[0]
    with contextlib.ExitStack() as stack:
        if is_first_host():
            stack.enter_context(folder.locked())
        first_then_others(lambda: folder.claim(config))
        microbatch = _chosen_microbatch(assembly, folder, options)
        secret, ledger = _secret_and_ledger(assembly, folder, options)
        begun = len(ledger) > len(assembly.plan.prior) and not options.recharge
        _check_replay(stages, microbatch, population, folder, secret, begun=begun)
        return Books(microbatch, secret, ledger, stack.pop_all().close)


def _chosen_microbatch(assembly: Assembly, folder: RunFolder, options: Options) -> int:
    """The microbatch that was asked for, that was found when the run began, or a new find."""
    if options.microbatch or jax.process_count() > 1:  # hosts would not agree on a clock
        return assembly.microbatch
    if not folder.microbatch.exists():
        files.write_json(folder.microbatch, {"microbatch": fastest(assembly)})
    return int(json.loads(folder.microbatch.read_text())["microbatch"])


def _secret_and_ledger(
    assembly: Assembly, folder: RunFolder, options: Options
) -> tuple[Secret, Ledger]:
    if options.recharge and is_first_host():
        folder.forget_secret()
    may_create = options.recharge or not folder.ledger.exists()
    secret = first_then_others(
        lambda: assembly.plan.open_secret(
            folder.secret,
            seed=options.seed,
            insecure_seed=options.insecure_seed,
            may_create=may_create,
        )
    )
    return secret, assembly.plan.open_ledger(folder.ledger, writes=is_first_host())


def _check_replay(
    stages: Sequence[Assembly],
    microbatch: int,
    population: Population,
    folder: RunFolder,
    secret: Secret,
    *,
    begun: bool,
) -> None:
    """Refuses to resume unless everything that a step reads is what it was when the run began."""
    devices = [f"{d.platform} {d.device_kind}" for d in stages[0].mesh.devices.flat]
    env = environment(devices)
    parts = _parts_of_stages(stages) | {
        "data": population.digest,
        "config": folder.config.read_text(),
        "code": fingerprint.digest_of_code(),
        "versions": f"{env['python']} {env['versions']}",
        "devices": f"{env['devices']} {env['usable_cpus']}",
        "clipping": f"{stages[0].plan.clipping} {microbatch}",
        "place of the secret": secret.identity,
    }
    first_then_others(
        lambda: fingerprint.check(folder.fingerprint, secret, parts, may_create=not begun)
    )
    if is_first_host():
        files.write_json(folder.env, env)


def _parts_of_stages(stages: Sequence[Assembly]) -> dict[str, str]:
    """What each stage is made of, by content; a name says which stage, from the second one on."""
    found: dict[str, str] = {}
    for number, stage in enumerate(stages, start=1):
        mark = f" of stage {number}" if number > 1 else ""
        found |= {name + mark: part for name, part in _learned_parts(stage).items()}
    return found


def _learned_parts(assembly: Assembly) -> dict[str, str]:
    """Loss, what prepares its examples, optimiser and first variables, by content."""
    method, optimizer, params = assembly.method, assembly.optimizer, assembly.params
    example, key = dict(assembly.example), jax.random.key(0)
    state = jax.eval_shape(optimizer.init, params)
    variables, equations = (params, assembly.frozen), fingerprint.digest_of_equations
    coupled = prepared = ""
    if method.prepare is not None:
        prepared = equations(method.prepare, assembly.frozen, dict(assembly.spec))
    if method.batch_loss is not None:
        coupled = equations(method.batch_loss, *variables, *_of_batch(example, key))
    return {
        "loss": equations(method.loss, *variables, example, key),
        "batch_loss": coupled,
        "prepare": prepared,
        "optimizer": equations(optimizer.update, params, state, params),
        "first parameters": fingerprint.digest_of_arrays(variables),
    }


def _of_batch(example: dict[str, Any], key: jax.Array) -> tuple[Any, Any, Any]:
    """Returns (examples, mask, keys) of a batch of two, as a `batch_loss` gets them."""
    batch = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), example)
    return batch, jax.ShapeDtypeStruct((2,), bool), jax.random.split(key, 2)
