"""PrivacyPlan: the one frozen object that sampler, step, ledger and statement all ask.

None of them computes a sensitivity, a rate or a noise level again.
"""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxfair.errors import InputError
from jaxfair.privacy import claim, release, sampling, wiring
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.cliprules.base import ClipRule
from jaxfair.privacy.descent import Earlier
from jaxfair.privacy.ledger import Entry, Ledger
from jaxfair.privacy.perturbation import Perturbation
from jaxfair.privacy.queries import GRADIENT_SUM, Query, check_names, joint
from jaxfair.privacy.search import Search
from jaxfair.privacy.secret import Secret, create_secret, insecure_secret, load_secret
from jaxfair.privacy.sums import choice, clipping

__all__ = ["PrivacyPlan"]

PyTree = Any


@dataclass(frozen=True)
class PrivacyPlan:
    """How one run keeps its promise; all fields are public constants.

    Attributes:
      private: False for a plain run: nothing clipped, no noise, no claim.
      sampling_prob: q = expected_batch_size / public_size, of every unit in every step (with
        `group_probs` of those whose group is unknown).
      expected_batch_size: what the noisy sum is divided by, whatever was drawn.
      public_size: the declared size of the population that q and delta refer to.
      steps: how many draws there will be.
      l2_clip_norm: C.
      noise_multiplier: sigma; the noise on the gradient sum has standard deviation sigma C.
      epsilon, epsilon_rdp: cost of all steps at `delta`, by PLD and by RDP.
      budget: the epsilon that was asked for and is never exceeded.
      relation: the neighbouring relation of the guarantee.
      clipping, precision, way: how the sum is computed, see `sums.choice.How`.
      tuning_runs: see PrivacyConfig.
      earlier: the run whose parameters this one starts from; priced together, and no word of the
        claim is better than its own.
      queries: what else each draw releases, beside the gradient sum; one event with it.
      group_probs: sampling probability of the units of group 0, 1, ...; empty for one rate.
        All is priced at the largest. Public constants, and a unit's group has to follow from
        its own data alone (protocol P9).
      padded_draws: whether each step of a private run works on `max_draw` rows or more.
      rule: how gradients are scaled; None for the ordinary clip. Its queries are among `queries`.
      perturbation: the one draw gives the minimum of this objective, with its noise; None for
        noisy gradients.
      search: the run is one of a random number of runs of which the best is released, and all
        prices are those of the search (`search.py`); None for a run by itself.

    Raises InputError for two queries of one name, a rate outside (0, 1] and an unpriced query.
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
    precision: str = "float32"
    way: str = "auto"
    tuning_runs: int = 1
    earlier: Earlier | None = None
    queries: tuple[Query, ...] = ()
    group_probs: tuple[float, ...] = ()
    padded_draws: bool = True
    rule: ClipRule | None = field(default=None, repr=False)
    search: Search | None = None
    perturbation: Perturbation | None = None

    def __post_init__(self) -> None:
        check_names(self.queries)
        wiring.check_rates(self.group_probs)
        if self.private:
            wiring.check_priced(self.rule, self.queries)
        if self.relation != "add_or_remove_one":
            raise ValueError(
                f"relation is {self.relation!r}, but plans are priced for 'add_or_remove_one'."
            )

    @property
    def prior(self) -> tuple[Entry, ...]:
        """The ledger of all earlier stages; a plain run pays nothing and has none."""
        return self.earlier.entries if self.private and self.earlier else ()

    def sensitivity(self) -> float:
        """Returns how far one unit moves the released sum, in l2 norm: see `clip_margin`."""
        return self.l2_clip_norm

    how = property(lambda self: choice.How(self.clipping, self.precision, self.way))

    @property
    def clip_margin(self) -> float:
        """Share of C that goes to rounding, by the format and `max_draw` (`sums.choice`)."""
        return choice.clip_margin(self.how, self.max_draw)

    def noise_stddev(self) -> float:
        """Returns the standard deviation of the noise on every entry of the sum."""
        return self.noise_multiplier * self.sensitivity()

    @property
    def joint_noise_multiplier(self) -> float:
        """Noise multiplier of everything that one draw releases, taken together."""
        return joint(self.all_queries) if self.queries else self.noise_multiplier

    @property
    def all_queries(self) -> tuple[Query, ...]:
        """The gradient sum and the side queries of a draw."""
        gradient = Query(GRADIENT_SUM, self.sensitivity(), self.noise_multiplier)
        return (gradient, *self.queries)

    @property
    def priced_prob(self) -> float:
        """The largest sampling probability that any unit may have, at which all is priced."""
        return max((self.sampling_prob, *self.group_probs))

    @property
    def max_draw(self) -> int:
        """Units that a draw of up to `public_size` exceeds with a chance below 2^-40; none is cut.

        By public constants alone, in any mix of groups (`sampling.draw_bound`).
        """
        return sampling.draw_bound(self.public_size, self.priced_prob)

    @property
    def padded_to(self) -> int | None:
        """Rows that the work of each step is filled up to; None where it follows the draw."""
        return self.max_draw if self.private and self.padded_draws else None

    def least_chunks(self, chunk_size: int) -> int:
        """Returns how many chunks of this size each step has, whoever was drawn."""
        return max(1, -(-(self.padded_to or 1) // chunk_size))

    def event(self, steps: int) -> Event:
        """Returns the accounting event of `steps` steps of this plan."""
        return Event(self.priced_prob, self.joint_noise_multiplier, steps)

    def draw(self, secret: Secret, step: int, groups: np.ndarray) -> np.ndarray:
        """Returns the sorted indices of the units drawn for `step`, int64 of shape (m,).

        Guarantees: every unit is in the draw independently, at the rate of its group, or
        `sampling_prob` where that is unknown or the plan has no rates by group. Nobody else
        draws: these are the rates that `charge` pays for.

        Args:
          secret: keys the draw.
          step: number of the step, counted from 0; pay for it first.
          groups: (n,) int, one code per unit of the population, -1 for unknown; all -1 where
            the plan has no `group_probs`. How many there are is private.

        Raises InputError for a code that the plan has no rate for.
        """
        wiring.check_groups(groups, len(self.group_probs))
        prob, rates = self.sampling_prob, self.group_probs
        if not rates:
            return sampling.poisson_draw(secret, step, num_units=len(groups), sampling_prob=prob)
        return sampling.grouped_draw(
            secret, step, groups=groups, group_probs=rates, sampling_prob=prob
        )

    def sum_grads(
        self, loss_fn: Callable[..., jax.Array], params: PyTree, batch: PyTree, keys: Any, mask: Any
    ) -> PyTree:
        """Returns the (clipped) sum of the gradients of one batch, in float32."""
        given, units = (loss_fn, params, batch, keys, mask), self.max_draw
        if not self.private:
            return clipping.summed_grads(*given)
        return choice.clipped_sum(self.how, *given, l2_clip_norm=self.l2_clip_norm, units=units)

    def open_ledger(self, path: pathlib.Path, *, writes: bool = True) -> Ledger:
        """Returns the ledger of a run under this plan's budget; it begins with `prior`."""
        ledger = Ledger(
            path, budget=self.budget, delta=self.delta, writes=writes, search=self.search
        )
        ledger.inherit(self.prior)
        return ledger

    def charge(
        self,
        ledger: Ledger,
        *,
        stage: str,
        population: str,
        draws: str | Secret,
        first_step: int,
        steps: int,
    ) -> float | None:
        """Pays for the next `steps` draws before they are made; see `ledger.Entry`.

        Args:
          draws: the secret that keys them, or its tag `secret.tag("draws", "")`: the draws of
            another secret are others, and are paid for again.

        Returns the epsilon spent so far; None, and nothing is paid, without privacy. Raises
        LedgerError for a ledger of another plan or another population, and BudgetExceeded.
        """
        if not self.private:
            return None
        tag = draws.tag("draws", "") if isinstance(draws, Secret) else draws
        event = self.event(steps)
        rates = (event.sampling_prob, event.noise_multiplier)
        entry = Entry(stage, population, tag, first_step, steps, *rates)
        wiring.check_next(entry, self._own_entries(ledger))
        return ledger.charge(entry)

    def _own_entries(self, ledger: Ledger) -> list[Entry]:
        wanted: dict[str, Any] = {"budget": self.budget, "delta": self.delta, "search": self.search}
        return wiring.own_entries(ledger, prior=self.prior, **wanted)

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
        if spent is None:
            return release.line("")
        template = "epsilon {epsilon:.3f} of {budget:g}"
        return release.line(template, epsilon=spent, budget=self.budget)

    def statement(self, ledger: Ledger, steps: int) -> dict[str, Any]:
        """Returns the plan's part of privacy.json after `steps` steps.

        Epsilon is what the ledger says was paid; it and all other claims are null without
        privacy, never Infinity. Raises InputError where the ledger is of another plan, or has
        not paid for all of the `steps` draws.
        """
        own = self._own_entries(ledger) if self.private else []
        return claim.statement_of(self, ledger, own, steps)
