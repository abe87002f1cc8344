"""Faults of the clipped sum: each puts back a bug that some system has had."""

import contextlib

import jax
import jax.numpy as jnp

from jaxfair.engine import feed
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.sums import clipping, contractions, fast
from tests.privacy.mutations.putting import replaced, wrapped


def fault_01_divided_by_the_realised_batch_size():
    """optax.contrib.differentially_private_aggregate."""

    def sum_grads(original, plan, loss_fn, params, batch, keys, mask):
        total = original(plan, loss_fn, params, batch, keys, mask)
        realised = jnp.maximum(1, jnp.sum(mask))
        return jax.tree.map(lambda g: g * plan.expected_batch_size / realised, total)

    return wrapped(PrivacyPlan, "sum_grads", sum_grads)


@contextlib.contextmanager
def fault_03_a_nan_example_poisons_the_sum():
    """Opacus: a factor without a look at whether the norm is finite."""

    def scales(norms, mask, l2_clip_norm, *_):
        return jnp.minimum(1.0, l2_clip_norm / (norms + 1e-6)) * mask

    def weighted_sum(scales, grads):
        return jnp.einsum("b,b...->...", scales, grads)

    with (
        replaced(clipping, "scales_from_norms", scales),
        replaced(clipping, "_weighted_sum", weighted_sum),
    ):
        yield


def fault_04_the_norm_overflows():
    """Norms as the root of a sum of squares, in the gradient's own low precision."""

    def norms(grads):
        squares = [
            jnp.sum(jnp.square(g.astype(jnp.bfloat16).reshape(len(g), -1)), axis=1)
            for g in jax.tree.leaves(grads)
        ]
        return jnp.sqrt(sum(squares)).astype(jnp.float32)

    return replaced(clipping, "per_example_norms", norms)


def fault_05_the_norm_is_of_another_precision_than_the_gradient():
    """Ghost norms under autocast: norms of rounded operands, the sum of exact ones."""

    def norms(original, plan, operands, coefficients):
        rounded = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(a.dtype), operands)
        found, _ = original(plan, rounded, coefficients)
        return found, original(plan, operands, coefficients)[1]

    return wrapped(fast, "_norms", norms)


def fault_06_a_parameter_is_left_out_of_the_norm():
    """fastDP drops what it has no rule for."""
    return wrapped(fast, "joint", lambda original, norms: original(norms[:-1] or norms))


def fault_07_the_second_use_of_a_weight_overwrites_the_first():
    """fastDP keeps the activations of a layer's last call only."""

    def leaf(original, leaf, pairs, *more):
        return original(leaf, [pairs[0], *((0 * a, b) for a, b in pairs[1:])], *more)

    return wrapped(fast, "example_leaf", leaf)


def fault_08_asymmetric_padding_is_taken_for_its_mirror_image():
    """A convolution rule that is right for symmetric padding only."""

    def pad(original, x, space):
        return original(x, [(high, low, inner) for low, high, inner in space])

    return wrapped(contractions, "_pad", pad)


def fault_14_a_microbatch_is_clipped_as_one_unit():
    """TF-Privacy with num_microbatches below the batch size."""

    def sum_grads(plan, loss_fn, params, batch, keys, mask):
        total = clipping.summed_grads(loss_fn, params, batch, keys, mask)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(total)))
        scale = jnp.minimum(1.0, plan.l2_clip_norm / jnp.maximum(norm, 1e-12))
        return jax.tree.map(lambda g: g * scale, total)

    return replaced(PrivacyPlan, "sum_grads", sum_grads)


def fault_27_a_group_has_a_larger_clip_norm():
    """Individualised privacy by a sensitive attribute, at one price for all."""

    def sum_grads(original, plan, loss_fn, params, batch, keys, mask):
        if "group" not in batch:
            return original(plan, loss_fn, params, batch, keys, mask)
        parts = []
        for group, share in ((0, 1), (1, 2)):
            inside = mask & (batch["group"] == group)
            part = original(plan, loss_fn, params, batch, keys, inside)
            parts.append(jax.tree.map(lambda g, share=share: share * g, part))
        return jax.tree.map(jnp.add, *parts)

    return wrapped(PrivacyPlan, "sum_grads", sum_grads)


def fault_32_padding_reads_the_last_record():
    """JAX-Privacy warns of it: index -1 is somebody."""

    def gather(original, fields, rows, ids):
        real = {name: read(rows) for name, read in fields.items()}
        return original(fields, rows, ids)._replace(examples=real)

    return wrapped(feed, "gather", gather)


def fault_39_rounding_lifts_contributions_above_c():
    """Clipping at C itself."""
    return replaced(clipping, "CLIP_MARGIN", 0.0)


def fault_42_norms_come_from_a_pass_of_lower_precision():
    """Two passes, the first with TF32: ten bits of mantissa."""

    def truncated(g):
        words = jax.lax.bitcast_convert_type(g.astype(jnp.float32), jnp.uint32)
        kept = words & jnp.uint32(0xFFFFE000)
        return jax.lax.bitcast_convert_type(kept, jnp.float32)

    return wrapped(
        clipping, "per_example_norms", lambda original, g: original(jax.tree.map(truncated, g))
    )
