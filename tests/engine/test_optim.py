"""The optimiser equals torch's, and averages are what they say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair.engine.optim import OptimConfig, averaged_params, make_optimizer
from jaxfair.errors import InputError

STEPS = 40
GRADS = np.random.default_rng(0).normal(size=(STEPS, 3, 2)).astype(np.float32)


def trajectory(config, grads=GRADS, **options):
    """Returns the parameters after each step, and what is evaluated after the last."""
    optimizer = make_optimizer(config, **options)
    params = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
    state, seen = optimizer.init(params), []
    update = jax.jit(optimizer.update, donate_argnums=1)  # as the step gives its state away
    for grad in grads:
        updates, state = update({"w": grad, "b": grad[0]}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen, averaged_params(params, state)


@pytest.mark.parametrize("name", ["nadam", "adam", "sgd"])
def test_each_optimiser_moves_as_torch_moves(name):
    torch = pytest.importorskip("torch")
    makers = {
        "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.8),
    }
    ours, _ = trajectory(OptimConfig(name, 0.01, momentum=0.8))
    weight = torch.ones(3, 2, requires_grad=True)
    peer = makers[name]([weight])
    for grad, params in zip(GRADS, ours, strict=True):
        weight.grad = torch.tensor(grad)
        peer.step()
        np.testing.assert_allclose(params["w"], weight.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["nadam", "adam", "sgd"])
def test_the_rate_falls_by_half_a_cosine(name):
    torch = pytest.importorskip("torch")
    ours, _ = trajectory(OptimConfig(name, 0.01, decay_steps=STEPS))
    weight = torch.ones(3, 2, requires_grad=True)
    makers = {"nadam": torch.optim.NAdam, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    peer = makers[name]([weight], lr=0.01, **({"momentum": 0.9} if name == "sgd" else {}))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(peer, STEPS)
    for grad, params in zip(GRADS, ours, strict=True):
        weight.grad = torch.tensor(grad)
        peer.step()
        rate.step()
        np.testing.assert_allclose(params["w"], weight.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["nadam", "adam", "sgd"])
def test_weight_decay_is_added_to_the_gradient_as_in_torch(name):
    torch = pytest.importorskip("torch")
    ours, _ = trajectory(OptimConfig(name, 0.01, weight_decay=0.3))
    weight = torch.ones(3, 2, requires_grad=True)
    makers = {"nadam": torch.optim.NAdam, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    peer = makers[name]([weight], lr=0.01, weight_decay=0.3, **momentum)
    for grad, params in zip(GRADS, ours, strict=True):
        weight.grad = torch.tensor(grad)
        peer.step()
        np.testing.assert_allclose(params["w"], weight.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_each_third_step_moves_by_its_own_gradient_and_the_others_are_thrown_away():
    seen, _ = trajectory(OptimConfig("adam", 0.01, every=3))
    moved = np.any(np.diff([np.ones((3, 2)), *(p["w"] for p in seen)], axis=0), axis=(1, 2))
    assert moved.tolist() == [step % 3 == 2 for step in range(STEPS)]
    kept, _ = trajectory(OptimConfig("adam", 0.01), GRADS[2::3])
    np.testing.assert_array_equal(seen[-1]["w"], kept[-1]["w"])


def test_a_part_may_move_at_every_step_while_the_rest_waits():
    seen, _ = trajectory(OptimConfig("sgd", 0.01, every=2, parts={"b": {"every": 1}}))
    moves = lambda name: sum(np.any(a[name] != b[name]) for a, b in itertools.pairwise(seen))
    assert (moves("w"), moves("b")) == (STEPS // 2, STEPS - 1)


def test_the_rate_of_a_part_that_waits_falls_by_the_steps_of_the_run():
    seen, _ = trajectory(OptimConfig("sgd", 0.01, momentum=0.0, every=2, decay_steps=STEPS))
    last = np.abs(seen[-1]["w"] - seen[-2]["w"]) / np.abs(GRADS[-1])
    share = 0.5 * (1 + np.cos(np.pi * (STEPS - 1) / STEPS))
    np.testing.assert_allclose(last, 0.01 * share, rtol=1e-2)


def test_without_an_average_the_last_parameters_are_evaluated():
    seen, evaluated = trajectory(OptimConfig("nadam", 0.01))
    jax.tree.map(np.testing.assert_array_equal, evaluated, seen[-1])


@pytest.mark.parametrize("begin", [0, 25])
def test_a_late_average_is_the_mean_of_the_parameters_that_count(begin):
    seen, evaluated = trajectory(OptimConfig("sgd", 0.01, average="late", average_from=begin))
    expected = np.mean([params["w"] for params in seen[begin:]], axis=0)
    np.testing.assert_allclose(evaluated["w"], expected, rtol=1e-5)


def test_an_exponential_average_weighs_the_past_by_its_decay():
    seen, evaluated = trajectory(OptimConfig("adam", 0.01, average="ema", ema_decay=0.9))
    weights = 0.9 ** np.arange(STEPS)[::-1]
    expected = np.average([params["w"] for params in seen], axis=0, weights=weights)
    np.testing.assert_allclose(evaluated["w"], expected, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.99, 0.3])
def test_an_average_with_a_warm_up_is_that_of_de_et_al(decay):
    config = OptimConfig("sgd", 0.01, average="ema", ema_decay=decay, ema_warm_up=True)
    seen, evaluated = trajectory(config)
    mean = np.ones((3, 2))
    for t, params in enumerate(seen):
        kept = min(decay, (1 + t) / (10 + t))
        mean = kept * mean + (1 - kept) * np.asarray(params["w"], np.float64)
    np.testing.assert_allclose(evaluated["w"], mean, rtol=1e-5)


def test_a_warm_up_that_begins_late_keeps_nothing_of_what_came_before():
    fields = {"average": "ema", "ema_decay": 0.99, "ema_warm_up": True}
    seen, evaluated = trajectory(OptimConfig("sgd", 0.01, average_from=38, **fields))
    expected = (2 / 11) * seen[38]["w"] + (9 / 11) * seen[39]["w"]
    np.testing.assert_allclose(evaluated["w"], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_unit_normed_rate_is_the_rate_for_a_clip_of_one(name):
    """Clipped at C a gradient is C times as long; decay of the weights is none of its business."""
    config = OptimConfig(name, 0.01, weight_decay=0.1, unit_normed=True)
    for_one, _ = trajectory(config)
    for clip in (0.05, 4.0):
        seen, _ = trajectory(config, clip * GRADS, l2_clip_norm=clip)
        np.testing.assert_allclose(seen[-1]["w"], for_one[-1]["w"], rtol=1e-4)
    without, _ = trajectory(OptimConfig(name, 0.01, weight_decay=0.1), 4 * GRADS, l2_clip_norm=4)
    assert not np.allclose(without[-1]["w"], for_one[-1]["w"], rtol=1e-3)


def test_an_average_changes_no_step():
    plain, _ = trajectory(OptimConfig("nadam", 0.01))
    averaged, _ = trajectory(OptimConfig("nadam", 0.01, average="ema"))
    jax.tree.map(np.testing.assert_array_equal, plain, averaged)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"name": "nadm"},
            "optim.name is 'nadm'; known are adam, nadam, sgd. Did you mean 'nadam'",
        ),
        ({"average": "last"}, "optim.average is 'last'; known are none, ema, late"),
        ({"learning_rate": 0}, "optim.learning_rate is 0; it must be positive."),
        ({"learning_rate": float("inf")}, "optim.learning_rate is inf; it must be positive."),
        ({"decay_steps": -1}, "optim.decay_steps is -1; it must be 0 or more."),
        ({"momentum": 1.0}, r"optim.momentum is 1.0; it must be in \[0, 1\)."),
        ({"every": 0}, "optim.every is 0; it must be at least 1."),
        ({"weight_decay": -0.1}, "optim.weight_decay is -0.1; it must be 0 or more."),
        ({"parts": {"w": {"every": 0}}}, "optim.parts.w: optim.every is 0"),
        ({"average_from": -1}, "optim.average_from is -1; it must be 0 or more."),
    ],
)
def test_a_wrong_field_is_named_with_its_rule(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        OptimConfig(**fields)
