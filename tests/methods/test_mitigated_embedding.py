"""The embedding of a mitigated network is that of the network, in every stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.methods.mitigations.catalog import mitigated
from tests.methods.mitigated import BATCH, CASES, PLAIN, SPEC, logits, stages


def embed(params, frozen, batch):
    """The logits twice, as an embedding of four numbers."""
    return {"hidden": jnp.tile(logits(params, frozen, batch["x"]), (1, 2))}


@pytest.mark.parametrize("name", CASES)
def test_an_embedding_is_read_by_the_weights_that_predict(name):
    """What a probe reads rests on the same numbers as the score: here its logits."""
    method = mitigated(name, CASES[name], PLAIN._replace(embed=embed))
    made = [(method, *stages(name)[0][1:])]
    made += [(s.method, *g[1:]) for s, g in zip(method.stages, stages(name)[1:], strict=True)]
    for stage, params, frozen in made:
        found = stage.embed(params, frozen, BATCH)["hidden"]
        scores = stage.score(params, frozen, BATCH)
        wanted = np.stack([scores[task] for task in PLAIN.tasks], axis=1)
        np.testing.assert_allclose(jax.nn.sigmoid(found[:, :2]), wanted, rtol=1e-5)
    assert stage.embed is not None and set(SPEC) <= set(BATCH)
