"""The small phantom of the data room's tests is looked at here too."""

from tests.data.conftest import small_phantom

__all__ = ["small_phantom"]
