"""Sensitive attributes: losses against torch, masks, inputs, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfair.errors import InputError
from jaxfair.methods.attributes import (
    attribute_inputs,
    attribute_loss,
    attribute_onehot,
    check_attributes,
    input_count,
)

SIZES = (2, 6, 3)
LOGITS = jnp.asarray(np.random.default_rng(0).standard_normal(sum(SIZES)) * 3, jnp.float32)


def group(*codes):
    return jnp.asarray(codes, jnp.int32)


@pytest.mark.parametrize("codes", [(1, 4, 0), (0, -1, 2), (-1, -1, 1)])
def test_the_loss_is_torchs_cross_entropy_averaged_over_the_attributes_that_are_known(codes):
    torch = pytest.importorskip("torch")
    parts = torch.split(torch.from_numpy(np.array(LOGITS)), SIZES)
    theirs = [
        torch.nn.functional.cross_entropy(part, torch.tensor(code)).item()
        for part, code in zip(parts, codes, strict=True)
        if code >= 0
    ]
    ours = attribute_loss(LOGITS, group(*codes), SIZES)
    assert float(ours) == pytest.approx(np.mean(theirs), rel=1e-5) and ours.dtype == jnp.float32


@pytest.mark.parametrize("codes", [(-1, -1, -1), (2, 6, 3)])
def test_what_is_not_known_has_no_loss_and_no_gradient(codes):
    loss, grad = jax.value_and_grad(attribute_loss)(LOGITS, group(*codes), SIZES)
    assert float(loss) == 0 and not np.asarray(grad).any()


def test_one_unknown_attribute_has_no_gradient_beside_known_ones():
    grad = np.asarray(jax.grad(attribute_loss)(LOGITS, group(1, -1, 0), SIZES))
    assert grad[:2].any() and not grad[2:8].any() and grad[8:].any()


def test_extreme_logits_keep_the_gradient_finite():
    grad = jax.grad(attribute_loss)(LOGITS * 1e30, group(1, 4, 0), SIZES)
    assert np.isfinite(grad).all()


def test_attributes_as_codes_and_as_inputs():
    known, unknown = group(1, 2, 0), group(-1, -1, -1)
    assert attribute_onehot(known, SIZES).tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert attribute_inputs(known, SIZES).tolist() == [1, 0, 0, 1, 0, 0, 0, 1, 0, 0]
    assert attribute_inputs(group(0, 2, 0), SIZES)[0] == -1
    assert not attribute_inputs(unknown, SIZES).any()
    assert attribute_inputs(known, SIZES).shape == (input_count(SIZES),)


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({}, "'toy' needs at least one sensitive attribute: name them in data.groups"),
        (
            {"sex": 1},
            "'sex' of the method 'toy' has 1 values; it must be a number of at least 2: leave it",
        ),
        ({"sex": 2.5}, "has 2.5 values; it must be a number of at least 2"),
    ],
)
def test_wrong_attributes_end_in_one_sentence(attributes, sentence):
    with pytest.raises(InputError) as caught:
        check_attributes(attributes, "toy")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
