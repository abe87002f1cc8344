"""From what is promised to how it is kept: PrivacyConfig -> PrivacyPlan.

The plan is one frozen object that the sampler, the step, the ledger and the statement all
ask; none of them computes a sensitivity, a rate or a noise level again.
"""

import math
import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxfair.errors import InputError
from jaxfair.privacy import accounting, sampling
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.ledger import Entry, Ledger
from jaxfair.privacy.secret import Secret, create_secret, insecure_secret, load_secret
from jaxfair.privacy.statement import RELEASED, events_of, stages_of, tuning_cost
from jaxfair.privacy.sums import clipping, fast
from jaxfair.schema import NOT_COVERED

__all__ = ["PrivacyConfig", "PrivacyPlan", "delta_from_public_size", "make_plan"]

PyTree = Any
_CLAIMS = ("epsilon", "epsilon_rdp", "budget", "delta", "noise_multiplier", "l2_clip_norm")


@dataclass(frozen=True)
class PrivacyPlan:
    """How one run keeps its promise. All fields are public constants.

    Attributes:
      private: False for a plain run: nothing clipped, no noise, no claim.
      sampling_prob: q = expected_batch_size / public_size, of every unit in every step.
      expected_batch_size: what the noisy sum is divided by, whatever was drawn.
      public_size: the declared size of the population that q and delta refer to.
      steps: how many draws there will be.
      l2_clip_norm: C.
      noise_multiplier: sigma; the noise on the sum has standard deviation sigma C.
      epsilon, epsilon_rdp: cost of all steps at `delta`, by PLD and by RDP.
      budget: the epsilon that was asked for and is never exceeded.
      relation: the neighbouring relation of the guarantee.
      clipping: the way the sum is computed.
      tuning_runs: see PrivacyConfig.
      prior: ledger of the run whose parameters this one starts from; priced together.
    """

    private: bool
    sampling_prob: float
    expected_batch_size: int
    public_size: int
    steps: int
    l2_clip_norm: float
    noise_multiplier: float
    delta: float
    epsilon: float
    epsilon_rdp: float
    budget: float
    relation: str = "add_or_remove_one"
    clipping: str = "vmap"
    tuning_runs: int = 1
    prior: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        if self.relation != "add_or_remove_one":
            raise ValueError(
                f"relation is {self.relation!r}, but plans are priced for 'add_or_remove_one'."
            )

    def sensitivity(self) -> float:
        """Returns how far adding or removing one unit moves the clipped sum, in l2 norm."""
        return self.l2_clip_norm

    def noise_stddev(self) -> float:
        """Returns the standard deviation of the noise on every entry of the sum."""
        return self.noise_multiplier * self.sensitivity()

    def draw(self, secret: Secret, step: int, groups: np.ndarray) -> np.ndarray:
        """Returns the sorted indices of the units drawn for `step`; `groups` has one code each."""
        q = self.sampling_prob
        return sampling.poisson_draw(secret, step, num_units=len(groups), sampling_prob=q)

    def event(self, steps: int) -> Event:
        """Returns the accounting event of `steps` steps of this plan."""
        return Event(self.sampling_prob, self.noise_multiplier, steps)

    def sum_grads(
        self, loss_fn: Callable[..., jax.Array], params: PyTree, batch: PyTree, keys: Any, mask: Any
    ) -> PyTree:
        """Returns the (clipped) sum of the gradients of one batch, in float32."""
        if not self.private:
            return clipping.summed_grads(loss_fn, params, batch, keys, mask)
        way = fast.clipped_sum if self.clipping == "fast" else clipping.clipped_sum
        return way(loss_fn, params, batch, keys, mask, l2_clip_norm=self.l2_clip_norm)

    def open_ledger(self, path: pathlib.Path, *, writes: bool = True) -> Ledger:
        """Returns the ledger of a run under this plan's budget; it begins with `prior`."""
        ledger = Ledger(path, budget=self.budget, delta=self.delta, writes=writes)
        ledger.inherit(self.prior)
        return ledger

    def charge(
        self,
        ledger: Ledger,
        *,
        stage: str,
        population: str,
        draws: str,
        first_step: int,
        steps: int,
    ) -> float | None:
        """Pays for the next `steps` draws before they are made; see `ledger.Entry`.

        Returns the epsilon spent so far; None, and nothing is paid, without privacy.
        """
        if not self.private:
            return None
        rates = {"sampling_prob": self.sampling_prob, "noise_multiplier": self.noise_multiplier}
        entry = Entry(stage, population, draws, first_step, steps, **rates)
        return ledger.charge(entry)

    def open_secret(
        self, folder: pathlib.Path, *, seed: int, insecure_seed: int | None, may_create: bool
    ) -> Secret:
        """Returns what keys the run: the secret in `folder`, a new one, or a research seed.

        A plain run is keyed by its public `seed`. Raises InputError where a private run has
        begun (`may_create` False) and its secret is not there.
        """
        if insecure_seed is not None:
            return insecure_secret(insecure_seed)
        if not self.private:
            return insecure_secret(seed)
        try:
            return load_secret(folder)
        except FileNotFoundError:
            if may_create:
                return create_secret(folder)
            raise InputError(
                f"The secret of this run is not in {folder}, so its steps cannot be replayed; "
                "--recharge continues with a fresh one and pays for the lost steps again."
            ) from None

    def progress(self, spent: float | None) -> str:
        """Returns how much of the budget is spent, for the progress line; '' without privacy."""
        return "" if spent is None else f"epsilon {spent:.3f} of {self.budget:g}"

    def statement(self, ledger: Ledger, steps: int) -> dict[str, Any]:
        """Returns the plan's part of privacy.json after `steps` steps.

        Epsilon is what the ledger says was paid; it and all other claims are null without
        privacy, never Infinity.
        """
        statement = {
            "relation": self.relation,
            "accountant": accounting.ACCOUNTANT | {"version": accounting.library_version()},
            "sampling_prob": self.sampling_prob,
            "expected_batch_size": self.expected_batch_size,
            "public_size": self.public_size,
            "sampler": "poisson",
            "steps": steps,
            "events": events_of(ledger.entries),
            "inherited": len(self.prior),
            "stages": stages_of(ledger.entries, self.delta),
            "tuning": {"runs": self.tuning_runs, "epsilon": None},
            "ledger_head": ledger.head,
            "released": RELEASED,
            "not_covered": NOT_COVERED,
            **dict.fromkeys(_CLAIMS),
        }
        if self.private:
            statement |= {name: getattr(self, name) for name in _CLAIMS}
            statement["epsilon"] = ledger.epsilon()
            statement["epsilon_rdp"] = ledger.epsilon(accountant="rdp")
            events = [entry.event for entry in ledger.entries]
            statement["tuning"] = tuning_cost(events, self.delta, self.tuning_runs)
        return statement


def make_plan(
    config: PrivacyConfig,
    *,
    steps: int,
    expected_batch_size: int,
    public_size: int | None,
    prior: tuple[Entry, ...] = (),
) -> PrivacyPlan:
    """Finds the noise for the promised epsilon. Touches no data.

    Args:
      steps: draws of the whole run.
      expected_batch_size: mean size of a draw if the population had `public_size` units.
      public_size: declared in the config (protocol P3); how many units there really are is
        private and enters nowhere.
      prior: ledger of the run that this one starts from; the budget covers both.

    Raises InputError for a batch above the public size, or a delta too large for it.
    """
    if public_size is None or public_size < 1:
        raise InputError(
            f"data.public_size is {public_size}: declare the size of the training population as "
            "a public constant (a round figure from the data set's publication will do)."
        )
    if not 0 < expected_batch_size <= public_size:
        raise InputError(
            f"train.expected_batch_size is {expected_batch_size} but data.public_size is "
            f"{public_size}: a batch must be between 1 and the public size."
        )
    delta = _chosen_delta(config.delta, public_size)
    q = expected_batch_size / public_size
    shared: dict[str, Any] = {
        "sampling_prob": q,
        "expected_batch_size": expected_batch_size,
        "public_size": public_size,
        "steps": steps,
        "delta": delta,
        "tuning_runs": config.tuning_runs,
    }
    if not config.enabled:
        return PrivacyPlan(
            private=False, l2_clip_norm=math.inf, noise_multiplier=0.0, epsilon=math.inf,
            epsilon_rdp=math.inf, budget=math.inf, clipping="none", **shared,
        )  # fmt: skip
    spent = tuple(entry.event for entry in prior)
    try:
        sigma = accounting.noise_multiplier_from_epsilon(config.epsilon, delta, q, steps, spent)
    except ValueError as error:
        raise InputError(f"{error} Raise dp.epsilon: it is the budget of all stages.") from error
    events = [*spent, Event(q, sigma, steps)]
    return PrivacyPlan(
        private=True,
        l2_clip_norm=config.l2_clip_norm,
        noise_multiplier=sigma,
        epsilon=accounting.epsilon(events, delta),
        epsilon_rdp=accounting.epsilon_rdp(events, delta),
        budget=config.epsilon,
        clipping="fast" if config.clipping == "auto" else config.clipping,
        prior=prior,
        **shared,
    )


def delta_from_public_size(public_size: int) -> float:
    """Returns min(1e-5, 0.1 / public_size) (protocol P3)."""
    return min(1e-5, 0.1 / public_size)


def _chosen_delta(delta: float | None, public_size: int) -> float:
    if delta is None:
        return delta_from_public_size(public_size)
    if delta > 0.1 / public_size:
        raise InputError(
            f"dp.delta is {delta}, above 0.1 / public_size = {0.1 / public_size:.2g}: such a "
            "guarantee would allow publishing a person outright. Leave it out for "
            f"{delta_from_public_size(public_size):.2g}."
        )
    return delta
