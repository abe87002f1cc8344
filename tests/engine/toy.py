"""A training of three numbers on forty images, opened in a folder, for tests that attack it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair import engine
from jaxfair.engine.population import population_from_ids
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, Stage
from jaxfair.privacy.ledger import read_entries
from jaxfair.privacy.plan import PrivacyConfig, make_plan

N = 40
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
SPEC = {"x": jax.ShapeDtypeStruct((3,), np.float32)}
FACTS = {"unit": "image", "name": "made up"}


def first(key, spec):
    return {"w": jnp.zeros(3)}, {}


def loss(params, frozen, example, key):
    return jnp.sum((params["w"] - example["x"]) ** 2), {}


METHOD = Method("toy", (), first, loss, lambda *arguments: {})


def plan_of(plan_fields=None, **fields):
    config = PrivacyConfig(**{"epsilon": 6.0} | fields)
    sizes = {"steps": 8, "expected_batch_size": 10, "public_size": N} | (plan_fields or {})
    return make_plan(config, **sizes)


def open_toy(
    folder, *, plan=None, method=METHOD, data=X, people=None, optimizer=None, config=None, **options
):
    return engine.open(
        plan or plan_of(),
        method,
        optimizer or optax.sgd(0.1),
        people or population_from_ids(range(N), **FACTS),
        {"x": data.__getitem__},
        folder,
        spec=SPEC,
        config=config,
        options=engine.Options(**{"save_every": 2, "microbatch": 8, "progress": False} | options),
        mesh=engine.make_mesh(1),
    )


def started(folder, **fields):
    """A run that died after two of its eight steps."""
    with pytest.raises(KeyboardInterrupt), open_toy(folder, **fields) as trainer:
        for _ in trainer.steps():
            raise KeyboardInterrupt
    assert len(read_entries(folder / "ledger.jsonl")[0]) == 1


def refusal(folder, **fields):
    with pytest.raises(InputError) as caught:
        open_toy(folder, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def staged(scale, share=0.5, begin_at=0.0, prepare=None):
    later = METHOD._replace(
        name="later", loss=lambda p, f, e, k: (scale * loss(p, f, e, k)[0], {}), prepare=prepare
    )
    begin = lambda params, frozen, key, spec: ({"w": params["w"] + begin_at}, {})
    return METHOD._replace(stages=(Stage(later, begin, share),))


GROUPED = population_from_ids(range(N), **FACTS)._replace(groups=np.arange(N) % 2)
