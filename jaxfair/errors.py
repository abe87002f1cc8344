"""The one exception for input that a person can put right."""

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "nearest"]


class InputError(ValueError):
    """Refused input: one sentence with the value, the rule and what to do.

    Commands print the sentence and exit with status 2; any other exception is a
    mistake of ours and keeps its traceback.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ' Did you mean X?' for the known name closest to `name`, or ''."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""
