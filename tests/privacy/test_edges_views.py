"""Edges of augmentation multiplicity: several views of one image are still one unit."""

import jax
import numpy as np

from tests.privacy.toy import flat64, plan_of
from tests.privacy.views import BATCH, KEYS, MASK, PARAMS, looped, loss_of

CLIP = 0.1


def summed(views, mask):
    """The flat sum that a plan makes of a batch in which every image has so many views."""
    loss, plan = loss_of(views), plan_of(clip=CLIP, clipping="fast")
    return flat64(jax.jit(lambda m: plan.sum_grads(loss, PARAMS, BATCH, KEYS, m))(mask))


def test_edge_231_the_views_of_a_unit_are_averaged_before_the_one_clip():
    truth = looped(4, CLIP).ravel()
    np.testing.assert_allclose(summed(4, MASK), truth, atol=2e-3 * np.abs(truth).max())


def test_edge_232_a_unit_moves_the_sum_by_at_most_c_however_many_views_it_has():
    for views in (4, 16):
        whole = summed(views, np.ones(len(KEYS), bool))
        for place in range(len(KEYS)):
            rest = summed(views, np.arange(len(KEYS)) != place)
            assert np.linalg.norm(whole - rest) <= CLIP * (1 + 1e-6)
