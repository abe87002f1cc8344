"""What a search tries: fields of a config, each with a public law from which a run draws its value.

    optim.learning_rate=0.1..10     log-uniform between two positive numbers
    method.patterns=16..64          the same, rounded, where the field is a whole number
    optim.name=sgd|adam             one of these, each as likely

Only fields that leave the price of a run as it is may be tried: who takes part, how often, at what
noise is the same in all runs of a search, so that they are draws of one mechanism.
"""

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from jaxfair.errors import InputError

__all__ = ["ALLOWED", "Field", "drawn", "read_space", "with_settings"]

ALLOWED = ("augment.", "dp.l2_clip_norm", "method.", "optim.")
"""Beginnings of the names of fields that may be tried."""


class Field(NamedTuple):
    """One field of the config and the law of its value.

    Attributes:
      name: as in `--config.NAME`.
      choices: the values, each as likely; () for a range.
      low, high: ends of a range, log-uniform.
      whole: whether values of a range are rounded.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    whole: bool = False

    def told(self) -> Any:
        """Returns the law as it stands in search.json."""
        return list(self.choices) if self.choices else {"log_uniform": [self.low, self.high]}

    def draw(self, generator: np.random.Generator) -> Any:
        """Returns a value of the law."""
        if self.choices:
            return self.choices[int(generator.integers(len(self.choices)))]
        value = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        return round(value) if self.whole else float(f"{value:.6g}")


def read_space(words: Sequence[str], config: ConfigDict) -> tuple[Field, ...]:
    """Returns the fields that `words` name, in the order of the alphabet.

    Args:
      words: as NAME=LOW..HIGH or NAME=ONE|OTHER.
      config: whose fields they are.

    Raises InputError for a word of another form, a name that the config has not, twice, or that a
    search may not try.

    >>> config = ConfigDict({"optim": {"learning_rate": 0.1, "name": "sgd"}})
    >>> read_space(["optim.name=sgd|adam", "optim.learning_rate=.1..10"], config)[0].told()
    {'log_uniform': [0.1, 10.0]}
    """
    fields = [_field(word, config) for word in words]
    names = [field.name for field in fields]
    if not fields or len(set(names)) < len(names):
        raise InputError(
            "--try names what a search tries, each field once, as "
            "--try=optim.learning_rate=0.1..10,optim.name=sgd|adam."
        )
    return tuple(sorted(fields))


def drawn(space: Sequence[Field], generator: np.random.Generator) -> dict[str, Any]:
    """Returns the settings of one run, by field."""
    return {field.name: field.draw(generator) for field in space}


def with_settings(config: ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of the config with these fields instead.

    Raises InputError for a value of another type than the field's.
    """
    changed = ConfigDict(config.to_dict())
    for name, value in settings.items():
        try:
            changed.update_from_flattened_dict({name: value})
        except (TypeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"--try gives config.{name} the value {value!r}: {said}") from error
    return changed


def _field(word: str, config: ConfigDict) -> Field:
    name, equal, law = word.partition("=")
    known = _leaves(config.to_dict())
    if not (equal and law) or name not in known:
        raise InputError(
            f"--try has {word!r}, and takes NAME=LOW..HIGH or NAME=ONE|OTHER, where NAME is a "
            "field of the config that --help lists."
        )
    if not name.startswith(ALLOWED):
        raise InputError(
            f"--try has {name}, which decides who takes part or at what price; a search tries "
            f"fields of {', '.join(ALLOWED)}, whose runs all cost the same."
        )
    low, range_, high = law.partition("..")
    if range_:
        return _range(word, name, low, high, isinstance(known[name], int))
    choices = tuple(_value(text, known[name]) for text in law.split("|"))
    return Field(name, choices)


def _range(word: str, name: str, low: str, high: str, whole: bool) -> Field:
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = (math.nan, math.nan)
    if not 0 < ends[0] < ends[1] < math.inf:
        raise InputError(
            f"--try has {word!r}: a range is LOW..HIGH with 0 < LOW < HIGH; name other values one "
            "by one, as NAME=0|0.5."
        )
    return Field(name, (), *ends, whole)


def _value(text: str, now: Any) -> Any:
    """A word as the type that the field has."""
    if isinstance(now, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return float(value) if isinstance(now, float) and isinstance(value, int) else value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
