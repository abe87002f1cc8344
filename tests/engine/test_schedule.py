"""What is frozen but follows a schedule: the same for every row, chunk, device and way."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair import engine
from jaxfair.audit import bench as audit
from jaxfair.engine.assembly import assemble
from jaxfair.errors import InputError
from jaxfair.methods.base import Method
from jaxfair.privacy.secret import insecure_secret
from tests.engine.test_scan import cached, scanned
from tests.engine.toy import METHOD, SPEC, open_toy, plan_of, refusal, started
from tests.privacy.toy import Bench, dense_loss, dense_params, examples_of, flat64, looped
from tests.privacy.toy import plan_of as small_plan

POPULATION = examples_of([0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 30.0, 0.3, 0.7, 5.0])
STEPS = 4


def at(progress, frozen):
    return {"strength": frozen["strength"] + 8 * progress}


def scheduled_loss(params, frozen, example, key):
    value, aux = dense_loss(params, {}, example, key)
    return frozen["strength"] * value, aux


SCHEDULED = Method(
    "scheduled",
    (),
    lambda key, spec: (dense_params(), {"strength": jnp.zeros(())}),
    scheduled_loss,
    None,
    schedule=lambda frozen, progress: at(progress, frozen),
)


def bench_of(devices=1, **fields):
    plan = small_plan(steps=STEPS, clip=1e3, **fields)
    return Bench(SCHEDULED, plan, devices, microbatch=1, chunk=8)


def truth_of(bench, step):
    """The loop over single examples with the strength of this step alone."""
    plain = SCHEDULED._replace(
        loss=lambda p, f, e, k: scheduled_loss(p, at(step / STEPS, {"strength": 0.0}), e, k)
    )
    return looped(Bench(plain, bench.plan), POPULATION, clip=1e3)


@pytest.mark.parametrize(("devices", "clipping"), [(1, "vmap"), (1, "fast"), (8, "fast")])
def test_every_row_of_a_draw_has_the_strength_of_its_step(devices, clipping):
    bench = bench_of(devices, clipping=clipping)
    feed, state = bench.feed(POPULATION), bench.start()  # two chunks a draw
    for step in range(STEPS):
        state, _ = bench.train(feed, first=step, state=state)
        total, truth = (
            flat64(state.opt_state) * bench.plan.expected_batch_size,
            truth_of(bench, step),
        )
        np.testing.assert_allclose(total, truth, atol=1e-5 * max(np.abs(truth).max(), 1e-9))
    assert np.abs(truth).max() > 0


def test_many_chunks_at_once_follow_the_schedule_too():
    bench = bench_of()
    feed = cached(bench.feed(POPULATION))
    truth, _ = bench.train(feed, steps=STEPS)
    _, state, _ = scanned(bench, feed, length=3, stretches=((0, STEPS),))
    np.testing.assert_allclose(flat64(state.opt_state), flat64(truth.opt_state), rtol=1e-6)


def test_the_audit_knows_the_schedule():
    bench = bench_of()
    made = bench.feed(POPULATION)
    tried = audit.Bench(
        bench.plan, bench.assembly, made.fields, made.population.rows, made.population
    )
    watched, clipped_sum = audit.under_audit(tried), audit.reference(tried)
    feed = audit.feed_of(tried, insecure_secret(3))
    for released in audit.play(tried, watched, feed, STEPS):
        ours, truth = flat64(released.noisy_sum), flat64(clipped_sum(released))
        np.testing.assert_allclose(ours, truth, atol=1e-5 * max(np.abs(truth).max(), 1e-9))
    assert np.abs(truth).max() > 0


def with_schedule(schedule):
    init = lambda key, spec: ({"w": jnp.zeros(3)}, {"strength": jnp.zeros(())})
    return METHOD._replace(init=init, schedule=schedule)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda frozen, progress: {},
        lambda frozen, progress: {"strength": jnp.zeros(2)},
        lambda frozen, progress: {"strength": jnp.zeros((), jnp.int32)},
    ],
)
def test_a_schedule_of_other_arrays_is_refused_before_anything_is_trained(schedule):
    method = with_schedule(schedule)
    with pytest.raises(InputError, match="schedule of 'toy' gives arrays of other shapes"):
        assemble(
            plan_of(), method, None, spec=SPEC, variables=method.init(None, None), microbatch=4,
            mesh=engine.make_mesh(1),
        )  # fmt: skip


def test_another_schedule_is_never_replayed_unpaid(tmp_path):
    rising = lambda speed: with_schedule(
        lambda frozen, progress: {"strength": jnp.asarray(speed * progress, jnp.float32)}
    )
    started(tmp_path / "run", method=rising(1.0))
    assert "schedule" in refusal(tmp_path / "run", method=rising(2.0))
    with open_toy(tmp_path / "run", method=rising(1.0)) as trainer:
        assert [released.step for released in trainer.steps()][-1] == plan_of().steps
