"""Examples are what the indices say, padding is zero, and the thread passes errors on."""

import numpy as np
import pytest

from jaxfair.data.loader import prefetch, read_rows

TABLE = np.arange(20, dtype=np.float32).reshape(10, 2)
FIELDS = {"x": lambda rows: TABLE[rows]}


def test_rows_are_read_in_order_and_padding_is_zero():
    examples = read_rows(FIELDS, np.array([3, 0, -1]))
    np.testing.assert_array_equal(examples["x"], [[6, 7], [0, 1], [0, 0]])


def test_padding_alone_keeps_the_shape():
    examples = read_rows(FIELDS, np.full(4, -1))
    assert examples["x"].shape == (4, 2) and not examples["x"].any()


def test_prefetch_keeps_the_order():
    assert list(prefetch(iter(range(50)))) == list(range(50))


def test_prefetch_raises_what_the_maker_raised():
    def maker():
        yield 1
        raise RuntimeError("disk gone")

    items = prefetch(maker())
    assert next(items) == 1
    with pytest.raises(RuntimeError, match="disk gone"):
        next(items)


def test_prefetch_stops_with_its_consumer():
    made = []

    def maker():
        for i in range(1000):
            made.append(i)
            yield i

    items = prefetch(maker(), depth=1)
    next(items)
    items.close()
    count = len(made)
    assert count < 1000
