"""What a user promises; checked at the door."""

import math
from dataclasses import dataclass
from typing import Any

from jaxfair.errors import InputError
from jaxfair.privacy.perturbation import MECHANISMS
from jaxfair.privacy.search import LAWS, Search
from jaxfair.schema import PRECISIONS, UNITS

__all__ = ["CLIPPINGS", "WAYS", "PrivacyConfig"]

CLIPPINGS = ("auto", "vmap", "fast")
WAYS = ("auto", "loop", "accelerator")


@dataclass(frozen=True)
class PrivacyConfig:
    """What the user promises; `config.dp` of a config file.

    Attributes:
      enabled: False trains without privacy in the same loop, for comparison.
      epsilon: the budget, for all steps together.
      l2_clip_norm: C, the bound on one unit's gradient per step.
      delta: None for min(1e-5, 0.1 / public_size), else at most 0.1 / public_size.
      unit: who is protected; None for what the data's ids name: the patient where the source
        knows patients, else the lesion or the image. The statement names it.
      clipping: how the clipped sum is computed, "vmap" or "fast", or "auto" for the fast
        way; both give the same sum.
      precision: what the fast way rounds its operands to, once, before norm and sum alike:
        "float32" (not at all), "tf32" or "bfloat16", which a GPU's tensor cores multiply
        exactly. The clip's margin follows. How the model itself computes is another matter.
      way: how the fast way goes: "loop" over the examples, "accelerator" (many at a time, sums
        as convolutions), or "auto" for what suits the device and the precision.
      microbatch: examples per device whose gradients are held at once; 0 chooses.
      insecure_seed: a research seed instead of the operating system's secret. The statement
        then says that the run is not private.
      tuning_runs: how many runs on the same private data were compared to choose this
        config, itself included; 1 for none. The statement prices them.
      search_mean: expected number of runs of a search that is paid for (`python -m jaxfair.tune`);
        `epsilon` is then the budget of all its runs together, and each has more noise. 0 for none.
      search_law: law of that number: geometric, logarithmic or poisson (`search.LAWS`).
      mechanism: how parameters become private: "gradients", noisy sums of them in steps; of a
        linear probe also "objective" or "output", the minimum of its loss with noise inside or on
        it, at once (`perturbation.py`).
      ridge: of these two: weight of half the squared length of the parameters beside the mean loss.
      padded_draws: fill the work of each step up to one public size, so that the time of a
        step does not tell how many were drawn. False saves a third to a half of the rows, and
        the statement says what a watcher of the machine then sees.
    """

    enabled: bool = True
    epsilon: float = 8.0
    l2_clip_norm: float = 1.0
    delta: float | None = None
    unit: str | None = None
    clipping: str = "auto"
    precision: str = "float32"
    way: str = "auto"
    microbatch: int = 0
    insecure_seed: int | None = None
    tuning_runs: int = 1
    search_mean: float = 0.0
    search_law: str = "geometric"
    padded_draws: bool = True
    mechanism: str = "gradients"
    ridge: float = 1e-3

    def __post_init__(self) -> None:
        _require(0 < self.epsilon <= 100, "dp.epsilon", self.epsilon, "in (0, 100]")
        _require(0 < self.l2_clip_norm < math.inf, "dp.l2_clip_norm", self.l2_clip_norm, "positive")
        in_range = self.delta is None or 0 < self.delta < 1
        _require(in_range, "dp.delta", self.delta, "in (0, 1), or left out")
        known = self.unit is None or self.unit in UNITS
        _require(known, "dp.unit", self.unit, f"one of {', '.join(UNITS)}, or left out")
        _require(self.clipping in CLIPPINGS, "dp.clipping", self.clipping, " or ".join(CLIPPINGS))
        precisions = PRECISIONS if self.clipping != "vmap" else ("float32",)
        rule = " or ".join(precisions) + " with dp.clipping='vmap'" * (self.clipping == "vmap")
        _require(self.precision in precisions, "dp.precision", self.precision, rule)
        ways = WAYS if self.precision == "float32" else ("auto", "accelerator")
        rule = " or ".join(ways) + f" with dp.precision={self.precision!r}"
        _require(self.way in ways, "dp.way", self.way, rule)
        _require(self.tuning_runs >= 1, "dp.tuning_runs", self.tuning_runs, "1 or more")
        searched = self.search_mean == 0 or 1 < self.search_mean <= 1e6
        _require(searched, "dp.search_mean", self.search_mean, "above 1 and at most 1e6, or 0")
        _require(self.search_law in LAWS, "dp.search_law", self.search_law, " or ".join(LAWS))
        paid = self.search_mean == 0 or self.tuning_runs == 1
        _require(paid, "dp.tuning_runs", self.tuning_runs, "1 beside dp.search_mean, which pays")
        known = self.mechanism in MECHANISMS
        _require(known, "dp.mechanism", self.mechanism, " or ".join(MECHANISMS))
        _require(0 < self.ridge < math.inf, "dp.ridge", self.ridge, "positive")
        _require(self.microbatch >= 0, "dp.microbatch", self.microbatch, "0 or more")

    @property
    def search(self) -> Search | None:
        """The search that the run belongs to; None for a run by itself, and without privacy."""
        paid = self.enabled and self.search_mean
        return Search(float(self.search_mean), self.search_law) if paid else None


def _require(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise InputError(f"{name} is {value!r}; it must be {rule}.")
