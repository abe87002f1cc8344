"""Opens a training in a folder: checked, with its books, restored to where it was left."""

import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from jaxfair.data.loader import Fields
from jaxfair.engine.assembly import Assembly, Spec, assemble
from jaxfair.engine.books import Options, open_books
from jaxfair.engine.population import Population, check_population, size_remark
from jaxfair.engine.stages import stages_of
from jaxfair.engine.step import DEFAULT_MICROBATCH
from jaxfair.engine.trainer import Trainer
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree, method_from_loss
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.run.folder import RunFolder

__all__ = ["open", "open_assembly"]


def open(
    plan: PrivacyPlan,
    loss: Method | Callable[[PyTree, Any, Any], Any],
    optimizer: optax.GradientTransformation,
    population: Population,
    fields: Fields,
    folder: str | os.PathLike[str],
    *,
    spec: Spec,
    params: PyTree = None,
    config: Mapping[str, Any] | None = None,
    options: Options | None = None,
    mesh: Mesh | None = None,
) -> "Trainer":
    """Opens a training in `folder`: a new one, or one that was interrupted there.

    Args:
      plan: from `jaxfair.privacy.make_plan`; with `enabled=False` it is a plain run.
      loss: `(params, example, key) -> scalar` of one example without a batch axis, or a Method.
      optimizer: sees noisy means only.
      population: who may be drawn.
      fields: name -> reader of rows, (n,) int -> (n, ...), of the raw examples.
      folder: ledger, checkpoints, metrics and privacy.json go there.
      spec: shape and dtype of each array of a raw example.
      params: first parameters of a loss; a Method makes its own from `options.seed`.
      config: more public settings for config.json; a folder with another one is refused.
      mesh: the devices; None for all.

    Raises InputError, in one sentence, where the loss couples examples or is no number, the
    folder is of another config, in use or finished, or the run cannot be replayed.

    >>> import tempfile, jax.numpy as jnp, numpy as np
    >>> from jaxfair import engine, privacy
    >>> x = np.random.default_rng(0).normal(size=(90, 3)).astype("float32")
    >>> plan = privacy.make_plan(
    ...     privacy.PrivacyConfig(epsilon=3.0), steps=4, expected_batch_size=20, public_size=45
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer = engine.open(
    ...         plan,
    ...         lambda w, example, key: jnp.sum((w - example["x"]) ** 2),
    ...         optax.sgd(0.1),
    ...         engine.population_from_ids(np.arange(90) // 2, unit="patient"),
    ...         {"x": x.__getitem__},
    ...         folder,
    ...         spec={"x": jax.ShapeDtypeStruct((3,), np.float32)},
    ...         params=jnp.zeros(3),
    ...         options=engine.Options(save_every=2, microbatch=8, progress=False),
    ...     )
    ...     with trainer:
    ...         steps = [released.step for released in trainer.steps()]
    ...     statement = trainer.statement()
    >>> steps, statement["unit"], statement["steps"]
    ([2, 4], 'patient', 4)
    >>> 2.9 < statement["epsilon"] <= 3.0
    True
    """
    options = options or Options()
    method = loss if isinstance(loss, Method) else method_from_loss(loss, params)
    variables = method.init(jax.random.key(options.seed), dict(spec))
    size = options.microbatch or DEFAULT_MICROBATCH
    assembly = assemble(
        plan, method, optimizer, spec=spec, variables=variables, microbatch=size, mesh=mesh
    )
    own = _config_of(plan, method, options)
    for name in own.keys() & (config or {}).keys():
        raise InputError(
            f"config names {name!r}, which the plan and the options say: leave it out, so that "
            "config.json cannot say otherwise."
        )
    config = own | dict(config or {})
    return open_assembly(assembly, population, fields, folder, config=config, options=options)


def open_assembly(
    assembly: Assembly,
    population: Population,
    fields: Fields,
    folder: str | os.PathLike[str],
    *,
    config: Mapping[str, Any],
    options: Options | None = None,
) -> "Trainer":
    """Opens the training of an assembly; arguments and errors as of `open`."""
    options = options or Options()
    check_population(population, assembly.plan)
    if options.progress:
        for line in size_remark(population, assembly.plan):
            print(line, file=sys.stderr)
    stages, path = stages_of(assembly, assemble), RunFolder(pathlib.Path(folder))
    books = open_books(stages, population, fields, path, config, options)
    try:
        trainer = Trainer(stages, population, fields, path, books, options)
        trainer.statement()  # what could not be said at the end is said now
        return trainer
    except BaseException:
        books.leave()
        raise


def _config_of(plan: PrivacyPlan, method: Method, options: Options) -> dict[str, Any]:
    """The public settings of a training that has no config file, as config.json holds them."""
    began = {"start_from": plan.earlier.folder} if plan.earlier else {}
    promise = {
        "enabled": plan.private,
        "epsilon": plan.budget if plan.private else None,
        "delta": plan.delta,
        "l2_clip_norm": plan.l2_clip_norm if plan.private else None,
        "clipping": plan.clipping,
        "precision": plan.precision,
        "way": plan.way,
        "tuning_runs": plan.tuning_runs,
        "search_mean": plan.search.mean if plan.search else 0.0,
        "search_law": plan.search.law if plan.search else "geometric",
        "mechanism": plan.perturbation.way if plan.perturbation else "gradients",
        "padded_draws": plan.padded_draws,
        "insecure_seed": options.insecure_seed,
    }
    return {
        "name": method.name,
        "seed": options.seed,
        "data": {"public_size": plan.public_size},
        "dp": promise,
        "train": {"steps": plan.steps, "expected_batch_size": plan.expected_batch_size} | began,
    }
