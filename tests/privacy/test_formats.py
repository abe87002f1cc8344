"""Formats round as they say, and the bounds of the products hold on a unit that cuts off."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.privacy.sums import formats, products
from jaxfair.schema import PRECISIONS
from tests.privacy import tensor_unit

NARROW = ["tf32", "bfloat16"]


def operands(kind, form, shape=(1, 40, 96, 80)):
    """A and B of the format: of random signs, of one sign, or with positions that cancel."""
    rng = np.random.default_rng(0)
    g, t, p, q = shape
    a, b = rng.normal(size=(g, t, p)), rng.normal(size=(g, t, q))
    if kind == "one sign":
        a, b = np.abs(a) + 1, np.abs(b) + 1
    if kind == "cancelling":
        a = np.repeat(1 + rng.random((g, t, 1)), p, axis=2)
        b -= 0.999 * b.mean(axis=1, keepdims=True)
    return [formats.rounded(jnp.asarray(x, jnp.float32), form) for x in (a, b)]


def truth(a, b):
    """A^T B in float64, and sum_t |a_t| |b_t|."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    sizes = np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2)
    return np.einsum("gtp,gtq->gpq", a, b), float(sizes.sum())


def assert_within_bounds(a, b, form):
    exact, bound = truth(a, b)
    g, t, p = a.shape
    off = np.linalg.norm(np.float64(products.blocked_product(a, b, form)) - exact)
    assert off <= products.product_error(t, form) * bound
    squares = float(products.gram_squares(a, b, form)) - float(np.sum(exact**2))
    assert abs(squares) <= products.gram_error(g, t, p, b.shape[2], form) * bound**2


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("kind", ["random", "one sign", "cancelling"])
def test_the_bounds_hold_on_a_unit_that_cuts_off(name, kind, monkeypatch):
    form = formats.FORMATS[name]
    monkeypatch.setattr(products, "multiply", tensor_unit.multiply)
    assert_within_bounds(*operands(kind, form), form)


@pytest.mark.parametrize("name", PRECISIONS)
def test_the_bounds_hold_on_this_device(name):
    """On a GPU this measures its tensor cores against float64, on cancelling inputs too."""
    form = formats.FORMATS[name]
    for kind in ("random", "one sign", "cancelling"):
        assert_within_bounds(*operands(kind, form), form)


@pytest.mark.parametrize("name", NARROW)
def test_rounded_operands_are_what_a_unit_reads_whole(name):
    """A unit that ignores the bits that its format has not changes nothing of them."""
    form = formats.FORMATS[name]
    for x in operands("random", form):
        exact = np.asarray(x, np.float64)
        np.testing.assert_array_equal(tensor_unit.cut(exact, form.bits + 1), exact)


@pytest.mark.parametrize("name", PRECISIONS)
def test_rounding_is_to_nearest_and_by_at_most_its_share(name):
    form = formats.FORMATS[name]
    x = np.random.default_rng(1).normal(size=2000).astype(np.float32)
    x = np.concatenate([x, 1 + np.float32(2) ** -np.arange(1, 24)])
    once = np.asarray(jax.jit(lambda x: formats.rounded(x, form))(x), np.float64)
    assert (np.abs(once - np.float64(x)) <= form.operand * np.abs(np.float64(x))).all()
    step = 2.0 ** (np.floor(np.log2(np.abs(once))) - form.bits)
    assert (np.abs(once - np.float64(x)) <= step / 2).all()


def test_what_is_not_finite_stays_so():
    for form in formats.FORMATS.values():
        kept = np.asarray(formats.rounded(jnp.float32([np.nan, np.inf, -np.inf, 0]), form))
        np.testing.assert_array_equal(kept.astype(np.float32), [np.nan, np.inf, -np.inf, 0])


def test_products_of_two_rounded_numbers_are_exact_in_float32():
    for name in NARROW:
        form = formats.FORMATS[name]
        assert 2 * (form.bits + 1) <= 24


def test_the_names_are_those_of_the_statement():
    assert tuple(formats.FORMATS) == PRECISIONS
