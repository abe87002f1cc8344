"""How a fault is put back: one attribute replaced while the test runs."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

__all__ = ["replaced", "wrapped"]


def replaced(owner: Any, name: str, value: Any) -> contextlib.AbstractContextManager:
    """Replaces `owner.name` by `value`."""
    return mock.patch.object(owner, name, value)


@contextlib.contextmanager
def wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Replaces `owner.name` by a function that calls `wrapper(original, *args, **kwargs)`."""
    original = getattr(owner, name)
    with mock.patch.object(owner, name, lambda *a, **k: wrapper(original, *a, **k)):
        yield
