"""What the house knows of a mitigation, and what it refuses by name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxfair.methods.base import Method
from jaxfair.privacy.cliprules.base import ClipRule

__all__ = ["PRIVACY", "REFUSED", "Mitigation", "Sections"]

PRIVACY = {
    "fits": "fits privacy as it is",
    "pays": "fits privacy and pays for a side query in each step",
    "needs_query": "needs an accounted query, and is refused under privacy",
    "not_separable": "has no loss of one example, and is refused under privacy",
}
"""How a mitigation may stand to privacy."""


Sections = Mapping[str, Mapping[str, Any]]


class Mitigation(NamedTuple):
    """What the house knows of a mitigation.

    Attributes:
      config: its frozen config class, `config.mitigation` of a config file.
      apply: `(config, Method) -> Method`.
      privacy: one of PRIVACY.
      why: the reason, in words that end a sentence.
      costs: what it costs, in words that end a sentence; "" where nothing is known.
      parts: `(config) -> {part: changes}` of `optim.parts`, an optimiser that its parameters need;
        None for none.
      reads_group: whether the model reads an image's group when it scores it.
      sets: `(config, sections) -> {section: {field: value}}`, fields of a config that it sets,
        before what the config says of them; `sections` is the config as it stands. None for none.
      rates: `(config, rate) -> (groups,)`, the sampling probability of each group; `rate` is that
        of the plan. None for one rate for all.
      clip: `(config) -> ClipRule`, how the private step scales gradients; None for the ordinary
        clip.
    """

    config: Any
    apply: Callable[[Any, Method], Method]
    privacy: str
    why: str
    costs: str = ""
    parts: Callable[[Any], dict[str, dict[str, Any]]] | None = None
    reads_group: bool = False
    sets: Callable[[Any, Sections], dict[str, dict[str, Any]]] | None = None
    rates: Callable[[Any, float], tuple[float, ...]] | None = None
    clip: Callable[[Any], ClipRule] | None = None

    @property
    def standing(self) -> str:
        """How it stands to privacy and what it costs, as two sentences."""
        costs = f" It costs {self.costs}." if self.costs else ""
        return f"It {PRIVACY[self.privacy]}: {self.why}.{costs}"

    def described(self, name: str, config: Any, told: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a report must say of a model, with its mitigation.

        Args:
          told: what the Method says of itself (`describe`), a `note` among it. `needs`, of what the
            model reads at test time beside the image, grows by the attributes that it reads now.
        """
        found = {
            **told,
            "mitigation": name,
            "note": f"{told['note']} Trained with the mitigation {name!r}. {self.standing}",
        }
        if self.reads_group:
            found["needs"] = list(dict.fromkeys([*told.get("needs", ()), *config.by]))
        return found

    def sections(self, config: Any, sections: Sections) -> dict[str, dict[str, Any]]:
        """Returns section -> field -> value, of what it sets.

        Args:
          sections: the config as it stands; of `optim.parts` what it says goes first.
        """
        found = {} if self.sets is None else dict(self.sets(config, sections))
        if self.parts is not None:
            parts = {**self.parts(config), **sections["optim"].get("parts", {})}
            found["optim"] = {**found.get("optim", {}), "parts": parts}
        return found


REFUSED = {
    "rescaled_weights": "weights whose losses are rescaled by the smallest and the largest of the "
    "batch couple the examples, so that the clip bounds nobody; use 'group_weights'",
    "copied_rows": "a patient whose rows are copied is drawn and clipped several times, and k "
    "copies cost about k times the epsilon; use 'upsampling'",
    "scored_core_set": "a list of those who did best in earlier trainings is a function of all "
    "patients without noise; use 'core_set' with a public list",
    "counted_weights": "weights by counts of private labels and groups are statistics without "
    "noise; use 'noisy_counts', or declare weights in 'group_weights'",
    "gradient_rates": "rates that follow gradients or losses tell of those whom they follow; use "
    "'upsampling' with public rates",
    "batch_penalty": "a penalty on differences between groups within a batch has no loss of one "
    "example; write it as a Method's batch_loss, for plain training",
}
"""What is asked for under these names and never built, private or not, with the reason."""
