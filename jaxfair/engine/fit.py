"""`fit_private`: a private training of one's own loss on one's own arrays, in one call."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxfair.engine.books import Options
from jaxfair.engine.inputs import check_objects, columns, number, parameters
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.opening import open
from jaxfair.engine.population import population_from_ids
from jaxfair.engine.trainer import Trainer
from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import PyTree
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.descent import read_earlier
from jaxfair.privacy.plan import make_plan
from jaxfair.privacy.public import whole
from jaxfair.run.folder import RunFolder

__all__ = ["Fit", "fit_private", "open_fit"]

LossFn = Callable[[PyTree, Any, Any], Any]


class Fit(NamedTuple):
    """What a training leaves.

    Attributes:
      params: the last parameters; the guarantee covers them, and whatever is made of them.
      privacy: the statement, as it stands in privacy.json.
      folder: ledger, checkpoints, metrics and statement; `python -m jaxfair.account --verify`
        checks it.
    """

    params: PyTree
    privacy: dict[str, Any]
    folder: RunFolder


def fit_private(
    loss_fn: LossFn,
    params: PyTree,
    arrays: Mapping[str, Any],
    *,
    patient: Iterable[object] | None,
    epsilon: float,
    public_size: int,
    steps: int,
    expected_batch_size: int,
    optimizer: optax.GradientTransformation,
    folder: str | os.PathLike[str],
    **options: Any,
) -> Fit:
    """Trains `params` on `arrays` with differential privacy for each patient.

    Every step draws patients by a secret, takes one row of each, clips the gradient of each
    row, adds noise to the sum and gives the noisy mean to the optimiser. What the steps cost
    is written down before they are made. The same call in the same folder resumes a run that
    was interrupted, bit by bit, or says in one sentence why it cannot.

    Args:
      loss_fn: `(params, example, key) -> scalar`, for ONE example without a batch axis; any
        function of JAX will do, be it plain, of Flax or of Equinox.
      params: pytree of floating-point arrays: public ones, or those of the run in `start_from`.
      arrays: name -> (rows, ...); an example is one row of each, by the same name.
      patient: the id of the patient of each row; (rows,) numbers or texts.
      epsilon: the budget of all steps together.
      public_size: the number of patients, declared as a public constant: it fixes the sampling
        probability and delta. How many there really are enters nowhere.
      steps: updates.
      expected_batch_size: mean number of patients in a step.
      optimizer: any optax transformation; it sees noisy means only.
      folder: where the run lies.
      options: further ones of `open_fit`, such as l2_clip_norm, unit, start_from, devices.

    Raises InputError, in one sentence, for a loss in which examples reach each other, ids that
    are missing, arrays of unequal length, a batch above `public_size`, a finished folder.

    >>> import tempfile, numpy as np, optax, jaxfair
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(600, 3)).astype("float32")
    >>> arrays = {"x": x, "y": x @ np.array([1.0, -2.0, 0.5], "float32")}
    >>> loss = lambda w, example, key: (example["x"] @ w - example["y"]) ** 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fit = jaxfair.fit_private(
    ...         loss, np.zeros(3, "float32"), arrays, patient=np.arange(600) // 2, epsilon=4.0,
    ...         public_size=300, steps=20, expected_batch_size=60, optimizer=optax.sgd(0.3),
    ...         folder=folder, progress=False,
    ...     )
    >>> fit.privacy["epsilon"] <= 4.0, fit.privacy["unit"], fit.privacy["grade"]
    (True, 'patient', 'private')
    """
    trainer = open_fit(
        loss_fn,
        params,
        arrays,
        patient=patient,
        epsilon=epsilon,
        public_size=public_size,
        steps=steps,
        expected_batch_size=expected_batch_size,
        optimizer=optimizer,
        folder=folder,
        **options,
    )
    statement = trainer.run()
    return Fit(trainer.params(), statement, trainer.folder)


def open_fit(
    loss_fn: LossFn,
    params: PyTree,
    arrays: Mapping[str, Any],
    *,
    patient: Iterable[object] | None,
    epsilon: float,
    public_size: int,
    steps: int,
    expected_batch_size: int,
    optimizer: optax.GradientTransformation,
    folder: str | os.PathLike[str],
    unit: str = "patient",
    population: str = "own data",
    start_from: str | os.PathLike[str] | None = None,
    devices: int | None = None,
    save_every: int = 50,
    recharge: bool = False,
    progress: bool = True,
    **promise: Any,
) -> Trainer:
    """Opens the training of `fit_private` for a loop of one's own.

        with open_fit(...) as trainer:
            for released in trainer.steps():
                print(released.step, released.epsilon)

    Args:
      loss_fn, params, arrays, epsilon, public_size, steps, expected_batch_size, optimizer,
        folder: as of `fit_private`.
      patient: the id of the unit of each row; None with unit "image", where each row stands
        for itself.
      unit: "patient", "lesion" or "image": who is protected.
      population: who the people are; runs on the same people are priced together by it.
      start_from: folder of the run that `params` came out of, whose debts and weaker words the
        claim takes over, and whose epsilon counts in this one's; None where they are public.
      devices: how many to use; None for all.
      save_every: steps that are paid for, trained and saved together, and between which
        `steps` yields.
      recharge: continue a run that cannot be replayed, and pay for the lost steps again.
      progress: show a progress bar.
      promise: further fields of `PrivacyConfig`: l2_clip_norm, delta, clipping, microbatch,
        tuning_runs, insecure_seed; `enabled=False` trains without privacy, for comparison.
    """
    check_objects(loss_fn, optimizer, folder)
    config = _promise(epsilon=number("epsilon", epsilon), unit=unit, **promise)
    steps = whole("steps", steps)
    expected_batch_size = whole("expected_batch_size", expected_batch_size)
    if public_size is not None:
        public_size = whole("public_size", public_size)
    params, arrays = parameters(params), columns(arrays)
    rows = _number_of_rows(arrays)
    ids = _ids(patient, unit, rows)
    plan = make_plan(
        config,
        steps=steps,
        expected_batch_size=expected_batch_size,
        public_size=public_size,
        earlier=None
        if start_from is None
        else read_earlier(os.fspath(start_from), named="start_from"),
    )
    people = population_from_ids(ids, unit=unit, name=population, digest=_digest(arrays, ids))
    return open(
        plan,
        loss_fn,
        optimizer,
        people,
        {name: values.__getitem__ for name, values in arrays.items()},
        folder,
        params=params,
        spec={n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in arrays.items()},
        mesh=make_mesh(devices),
        options=Options(
            save_every=save_every,
            microbatch=config.microbatch,
            insecure_seed=config.insecure_seed,
            recharge=recharge,
            progress=progress,
        ),
    )


def _promise(**fields: Any) -> PrivacyConfig:
    known = [field.name for field in dataclasses.fields(PrivacyConfig)]
    for name in fields:
        if name not in known:
            raise InputError(
                f"{name!r} is no option of fit_private and no field of PrivacyConfig; those are "
                f"{', '.join(known)}.{nearest(name, known)}"
            )
    return PrivacyConfig(**fields)


def _number_of_rows(arrays: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(values) if values.ndim else None for name, values in arrays.items()}
    if len(set(lengths.values())) != 1 or None in lengths.values():
        told = ", ".join(f"{name} {n}" for name, n in lengths.items()) or "there are none"
        raise InputError(
            f"arrays must have one row for each example, and as many all of them: {told}."
        )
    rows = next(iter(lengths.values())) or 0
    if not rows:
        raise InputError("arrays have no rows; give at least one example.")
    return rows


def _ids(patient: Iterable[object] | None, unit: str, rows: int) -> list[object]:
    if patient is None and unit != "image":
        raise InputError(
            f"patient is None, so nobody knows which rows belong to one {unit}: give the id of "
            "each row, or unit='image' to protect each row by itself."
        )
    flat = patient is None or (
        isinstance(patient, Iterable) and len(getattr(patient, "shape", (rows,))) == 1
    )
    if not flat or isinstance(patient, str | bytes | Mapping):
        raise InputError(
            f"patient must be a list or array (rows,): one id for each of {rows} rows."
        )
    ids: list[object] = list(range(rows)) if patient is None else list(patient)
    if len(ids) != rows:
        raise InputError(f"patient has {len(ids)} ids for {rows} rows; give one for each row.")
    return ids


def _digest(arrays: Mapping[str, np.ndarray], ids: Iterable[object]) -> str:
    digest = hashlib.sha256("\0".join(map(str, ids)).encode())
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    return digest.hexdigest()
