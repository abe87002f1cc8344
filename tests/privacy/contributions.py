"""What each example contributes to the batched clipped sum, recomputed in float64.

The operands are taken as they are multiplied: rounded to the format, one of them scaled and rounded
again, in as many parts as it is summed in.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxfair.privacy.sums import batched, choice, clipping, fast, producers, ways

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def contributing(loss_fn, form):
    """Returns `(params, batch, mask, clip) -> Clipped`, compiled once."""
    seen = {}
    margin = form.margin if form.bits < 23 else None

    def whole(params, batch, keys, mask, clip):
        made = batched.prepare(loss_fn, params, batch, keys, form=form)
        found = [batched.leaf_norms(made, i) for i in range(len(made.plan.leaves))]
        norms = fast.joint([norm for norm, _ in found])
        scales = clipping.scales_from_norms(norms, mask, clip, margin)
        parts, sums = [], []
        for i, (leaf, (_, held)) in enumerate(zip(made.plan.leaves, found, strict=True)):
            sums.append(batched.leaf_sum(made, i, scales, held))
            pairs = made.operands[i] if held is None else []
            sites = zip(leaf.sites, pairs) if held is None else ()
            parts.append((held, [_parts(site, pair, scales, form) for site, pair in sites]))
        seen.update(plan=made.plan)
        return scales, parts, sums, made.operands, made.coefficients

    call = jax.jit(whole, compiler_options=QUICK)

    def run(params, batch, mask, clip):
        keys = jax.random.split(jax.random.key(7), len(mask))
        scales, parts, sums, operands, coefficients = call(params, batch, keys, mask, clip)
        return _recomputed(seen["plan"], scales, parts, coefficients), sums, operands

    return run


def _parts(site, pair, scales, form):
    """A, and the parts of the scaled B, of all examples as matrices."""
    a, b = pair
    matrices = jax.vmap(site.matrices)
    summed = batched.scaled(b, scales, site.positions, form)
    kept = (scales > 0).reshape(-1, *[1] * (a.ndim - 1))
    made = [matrices(jnp.where(kept, a, 0), part) for part in summed]
    return made[0][0].astype(jnp.float32), [m[1].astype(jnp.float32) for m in made]


def _recomputed(plan, scales, parts, coefficients):
    """Per leaf the (rows, leaf) contributions, in float64; a tail of several sites in float32."""
    scales, leaves = np.asarray(scales, np.float64), []
    for leaf, (held, sites), given in zip(plan.leaves, parts, coefficients, strict=True):
        if held is not None:
            held = np.asarray(held, np.float64)
            leaves.append(held * scales.reshape(-1, *[1] * (held.ndim - 1)))
            continue
        found = []
        for a, bs in sites:
            b = sum(np.asarray(b, np.float64) for b in bs)
            found.append(np.einsum("bgtp,bgtq->bgpq", np.asarray(a, np.float64), b))
        if len(found) == 1:
            leaves.append(found[0])
        else:
            tail = lambda *made, leaf=leaf, given=given: producers.apply_tail(
                leaf.producer, [s.assemble(z) for s, z in zip(leaf.sites, made)], given, leaf.var
            )
            made = jax.vmap(tail)(*(jnp.asarray(z, jnp.float32) for z in found))
            leaves.append(np.asarray(made, np.float64))
    return leaves


def norms_of(contributions):
    """The (rows,) joint norms of per-leaf contributions."""
    flat = [np.reshape(c, (len(c), -1)) for c in contributions]
    return np.sqrt(sum(np.sum(np.square(c), axis=1) for c in flat))


def plan_of_loss(loss_fn, params, example, form):
    """The ways of a loss under the rule of the batched way."""
    rule = batched.rule_of(form)
    return ways.choose_ways(loss_fn, params, example, jax.random.key(0), rule)


def summed(precision, loss_fn, params, batch, mask, clip):
    """The sum as a plan makes it, one call."""
    how = choice.How("fast", precision, "accelerator")
    keys = jax.random.split(jax.random.key(7), len(mask))
    return choice.clipped_sum(how, loss_fn, params, batch, keys, mask, l2_clip_norm=clip)
