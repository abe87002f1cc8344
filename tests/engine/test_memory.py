"""What a step holds, counted by hand on functions of a few matrices."""

import jax
import jax.numpy as jnp

from jaxfair.engine.memory import held_at_most

X = jax.ShapeDtypeStruct((100, 100), jnp.float32)
ONE = 100 * 100 * 4


def held(function, *arguments, **how):
    return held_at_most(jax.jit(function, **how), *arguments) / ONE


def test_a_value_is_held_until_it_is_last_read():
    chain = lambda x: x @ x @ x @ x @ x
    assert held(chain, X) == 1 + 2
    fan = lambda x: (a := x @ x) + ((b := a @ a) @ (b @ b)) @ a
    assert held(fan, X) == 1 + 4


def test_arithmetic_with_one_reader_is_not_held():
    assert held(lambda x: jnp.sum(jnp.tanh(jnp.exp(x) * 2)), X) < 1.01
    assert held(lambda x: jnp.tanh(x) @ x, X) == 1 + 2


def test_a_loop_holds_one_round_and_what_it_stacks():
    step = lambda carry, _: (carry @ carry @ carry, carry)
    assert held(lambda x: jax.lax.scan(step, x, None, length=10), X) == 1 + 11 + 2


def test_what_is_given_away_is_held_until_it_is_read():
    twice = lambda x: x @ x @ x.T[:1].T
    assert held(twice, X, donate_argnums=0) <= held(twice, X)
    assert held(lambda x: (x @ x) @ jnp.ones((100, 100)), X, donate_argnums=0) <= 3
