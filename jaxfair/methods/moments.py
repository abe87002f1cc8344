"""The subspace in which embeddings of one class vary, from a second moment that is a gradient.

Let x, of length 1, be the embedding of an example and w (k,), of length 1, say to which classes it
belongs. The example's loss in the matrices M (k, d, d) is -<w (x) x x^T, M>, so its gradient is
-w (x) x x^T whatever M is, and gradient descent with a rate of 1 adds the second moments of
everybody drawn to M, noise included. That is protocol P10 (one noisy matrix in the same ledger)
by the step that trains everything else: the same draw, clip, noise, secret and event.

Guarantee: |gradient| = |w| |x|^2 = 1 before the clip (0 for an example without a class), so one
unit moves the sum by at most min(1, C) <= C. At a clip norm C of at most 1 everybody is clipped to
C alike, and the noise sigma C is sigma times one unit's part. Above 1 nobody is clipped, yet the
noise grows with C: C times the noise for the same sum. So choose a C of at most 1 where the
subspace matters. An example is one image of its unit, chosen anew for every draw, which stands for
the mean over the unit's images that P10 asks for. What is read from M afterwards is
post-processing.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

__all__ = [
    "above_noise",
    "belongs",
    "class_count",
    "column_loss",
    "moment_loss",
    "noise_edge",
    "noise_words",
    "row_loss",
    "subspaces",
]

ROUNDED = 1e-4
"""Below this share of the largest eigenvalue an edge is that of float32, not of privacy."""

ROWS = 64
"""Rows of a class in the batches for which the weight of the row loss was published."""


def class_count(labels: int, target: str) -> int:
    """Returns k: a class for each value of each label, or each of many classes."""
    return labels if target == "multi-class" else 2 * labels


def belongs(example: dict, target: str) -> jax.Array:
    """Returns (..., k) float32: 1 for each class that an example is in.

    Args:
      example: `label` (..., l) of 0 and 1, and `label_mask` (..., l) where there is one; a label
        that is NaN or masked was not asked, and puts nobody into a class.
      target: as of `labels.label_loss`. "multi-label" has the classes not-0, not-1, ..., then
        0, 1, ...; "multi-class" those of the labels, for an example whose labels were all asked.
    """
    label = example["label"].astype(jnp.float32)
    asked = ~jnp.isnan(label)
    if "label_mask" in example:
        asked &= example["label_mask"].astype(bool)
    label = jnp.where(asked, label, 0)
    if target == "multi-class":
        return jnp.where(jnp.all(asked, axis=-1, keepdims=True), label, 0)
    return jnp.concatenate([jnp.where(asked, 1 - label, 0), label], axis=-1)


def moment_loss(moment: jax.Array, x: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the loss whose gradient in `moment` is minus the second moment of one example.

    Args:
      moment: (k, d, d).
      x: (d,), of length 1 at most.
      classes: (k,) of `belongs`; an example that is in several weighs as much as one in one.
    """
    weights = classes * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(classes)), 1))
    return -jnp.sum(weights * jnp.einsum("kde,d,e->k", moment, x, x))


def subspaces(moment: jax.Array, *, directions: int, energy: float) -> dict[str, jax.Array]:
    """Returns the leading eigenvectors of each class's second moment, as `basis` and `values`.

    Args:
      moment: (k, d, d), noisy or not; its symmetric part counts, by which noise that is drawn for
        every entry loses half its variance.
      directions: how many; 0 for as many as hold `energy`.
      energy: the share of the sum of eigenvalues that is not to be exceeded, but by the first.
        Only those count that stand out of the noise as the matrix itself shows it: noise lies
        as far below zero as above, and a second moment not below at all, so what is not above
        minus the smallest eigenvalue may be noise. Without noise nothing is lost by that.

    Returns:
      basis: (k, d, d), the directions as columns, zeros after the last; values: (k, d), falling;
      edge: () of `noise_edge`.

    Source: FCRO (arXiv 2301.01481), whose SVD of the embeddings of a class has the same vectors
    on its left, and these values as squares; uncentred. k = 3 in the paper, energy .99 in its code.
    """
    values, vectors = jnp.linalg.eigh((moment + jnp.swapaxes(moment, 1, 2)) / 2)
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    place = jnp.arange(moment.shape[-1])
    if directions:
        kept = jnp.broadcast_to(place < directions, values.shape)
    else:
        clear = values > jnp.maximum(-values[:, -1:], 0)
        held = jnp.cumsum(jnp.where(clear, values, 0), axis=-1)
        kept = clear & (held <= energy * held[:, -1:]) | (place == 0)
    return {"basis": vectors * kept[:, None, :], "values": values, "edge": noise_edge(moment)}


def column_loss(basis: jax.Array, z: jax.Array, classes: jax.Array, labels: int) -> jax.Array:
    """Returns how much of one embedding lies in the sensitive subspace of its class.

    |U_y^T z|^2, the mean over `labels`. A mean over examples weighs each alike, which is FCRO's
    mean of the means of both classes where batches hold as many of either, as its own do.

    Args:
      basis: (k, d, d) of `subspaces`.
      z: (d,), of length 1.
      classes: (k,) of `belongs`.
      labels: l of a multi-label target, 1 for multi-class.

    Source: FCRO, equation 4 and its code.
    """
    return jnp.sum(classes * jnp.sum(jnp.square(jnp.einsum("kde,d->ke", basis, z)), -1)) / labels


def row_loss(z: jax.Array, x: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the squared cross-covariance of two embeddings within classes; couples examples.

    |sum_i (z_i - mean)(x_i - mean)^T|^2 / d^2 for each class, the mean over the classes of which
    there is anybody. The published code does not divide by the number of rows, so that its weight
    belongs to its batch of 64 rows a class; here it counts as if there were as many.

    Args:
      z, x: (n, d); no gradient goes to `x`.
      classes: (n, k) of `belongs`, zeros for padding.

    Source: FCRO, equation 6 and its code.
    """
    x = jax.lax.stop_gradient(x)
    count = jnp.maximum(jnp.sum(classes, axis=0), 1)
    centred = lambda v: v[:, None] - (jnp.einsum("nk,nd->kd", classes, v) / count[:, None])
    cross = jnp.einsum("nk,nkd,nke->kde", classes, centred(z), centred(x))
    squares = jnp.sum(jnp.square(cross * (ROWS / count)[:, None, None]), axis=(1, 2))
    return jnp.sum(squares) / z.shape[-1] ** 2 / jnp.maximum(jnp.sum(jnp.any(classes, axis=0)), 1)


def noise_edge(moment: jax.Array) -> jax.Array:
    """Returns the largest eigenvalue () that noise alone gives the symmetric part of a moment.

    2 s sqrt(d) (protocol P10), s the deviation of an entry off the diagonal of (M + M^T) / 2. A
    second moment is symmetric, so half the difference M - M^T is noise alone, and of the same size.
    Right for d from about 20 on, to a few per cent (Wigner's semicircle). 0 without noise.

    Args:
      moment: (k, d, d), whose classes have noise of one size.
    """
    dims = moment.shape[-1]
    apart = (moment - jnp.swapaxes(moment, 1, 2)) / 2
    each = jnp.sum(jnp.square(apart)) / (len(moment) * dims * (dims - 1))
    return 2 * jnp.sqrt(each * dims)


def above_noise(values: jax.Array, edge: float) -> list[int]:
    """Returns how many eigenvalues of each class stand above the noise; `values` (k, d)."""
    return [int(count) for count in jnp.sum(values > edge, axis=-1)]


def noise_words(subspace: Mapping[str, jax.Array]) -> str:
    """Returns how many of the directions of `subspaces` stand above the noise, as a sentence.

    "" where there is no noise but that of rounding.
    """
    edge = float(subspace["edge"])
    if edge <= ROUNDED * float(jnp.max(subspace["values"])):
        return ""
    kept = [int(n) for n in jnp.sum(jnp.any(subspace["basis"] != 0, axis=1), axis=-1)]
    clear = [min(n, k) for n, k in zip(above_noise(subspace["values"], edge), kept, strict=True)]
    return (
        f"The noise of privacy alone gives these second moments eigenvalues of up to {edge:.2g};"
        f" {sum(clear)} of the {sum(kept)} directions of all {len(kept)} classes stand above that"
        + ("." if clear == kept else ", and the others may be noise.")
    )
