"""Labels of one image: which names, which were asked, their losses and their scores.

Multi-label: each label is asked by itself, NaN means "not asked". Multi-class: exactly one is
true and the label is one-hot.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxfair.errors import InputError
from jaxfair.methods.base import Example

__all__ = [
    "TARGETS",
    "asked_labels",
    "check_exclusive",
    "check_labels",
    "check_one_true",
    "label_inputs",
    "label_loss",
    "label_scores",
]

TARGETS = ("multi-label", "multi-class")

MAX_WEIGHT = 1000.0
"""Class weights are public constants in (0, MAX_WEIGHT]."""


def check_labels(
    labels: tuple[str, ...], target: str, class_weights: tuple[float, ...] = ()
) -> None:
    """Refuses names that are missing or double, and weights that are no public constants."""
    least = 2 if target == "multi-class" else 1
    if len(labels) < least or len(set(labels)) < len(labels):
        raise InputError(
            f"labels = {labels} must be at least {least} different names for a {target} classifier."
        )
    if any(isinstance(weight, str) for weight in class_weights):
        raise InputError(
            f"class_weights is {''.join(map(str, class_weights))!r}; weights are public constants "
            "and never computed from private labels: give one number per label."
        )
    if len(class_weights) not in (0, len(labels)):
        raise InputError(
            f"class_weights has {len(class_weights)} entries for {len(labels)} labels; give one "
            "public constant per label, or none."
        )
    for weight in class_weights:
        if not (math.isfinite(weight) and 0 < weight <= MAX_WEIGHT):
            raise InputError(
                f"class_weights holds {weight}; a weight is a constant in (0, {MAX_WEIGHT:g}]."
            )


def check_exclusive(target: str, source: str, findings: tuple[str, ...]) -> None:
    """Refuses "multi-class" of a source whose own `findings` may be true together; () of tables."""
    if target == "multi-class" and findings:
        raise InputError(
            "method.target is 'multi-class', for labels of which exactly one is true, and those of "
            f"the source {source!r} may be true together: use 'multi-label'."
        )


def check_one_true(target: str, manifest: pd.DataFrame, labels: tuple[str, ...]) -> None:
    """Refuses "multi-class" of images whose labels were all asked and not exactly one is true.

    Args:
      manifest: columns image_id, split ("" of who is in none) and label_NAME, NaN if not asked.
    """
    rows = manifest[manifest["split"] != ""]
    true = rows[[f"label_{name}" for name in labels]].sum(axis=1, skipna=False)
    wrong = np.flatnonzero(true.notna() & (true != 1))
    if target == "multi-class" and len(wrong):
        raise InputError(
            f"method.target is 'multi-class', and {len(wrong)} of {len(rows)} images have not "
            f"exactly one true label, first {rows['image_id'].iloc[wrong[0]]!r} with "
            f"{true.iloc[wrong[0]]:g}: mend them, leave a cell empty (an image of which not all "
            "labels were asked has no loss), or use 'multi-label'."
        )


def label_loss(
    logits: jax.Array, views: Example, target: str, class_weights: tuple[float, ...] = ()
) -> jax.Array:
    """Returns the float32 loss of one image, averaged over its views.

    Args:
      logits: (views, l).
      views: `label` (views, l), and `label_mask` (views, l) where there is one; a label that
        is NaN or masked was not asked and has no loss. Each asked label weighs 1 / l.
      target: one of TARGETS.
      class_weights: the weight of positives ("multi-label") or of the class; () means all 1.
    """
    logits = logits.astype(jnp.float32)
    losses = _multi_class if target == "multi-class" else _multi_label
    weights = jnp.asarray(class_weights or (1.0,) * logits.shape[-1], jnp.float32)
    return jnp.mean(losses(logits, *asked_labels(views), weights))


def label_inputs(batch: Example) -> jax.Array:
    """Returns (b, l) float32, what a network is told of labels: +1, -1, and 0 where not asked."""
    label, asked = asked_labels(batch)
    return jnp.where(asked, 2 * label - 1, 0)


def label_scores(logits: jax.Array, labels: tuple[str, ...], target: str) -> dict[str, jax.Array]:
    """Returns {label: (b,) probability} from logits (b, l)."""
    squash = jax.nn.softmax if target == "multi-class" else jax.nn.sigmoid
    return dict(zip(labels, squash(logits.astype(jnp.float32)).T, strict=True))


def asked_labels(views: Example) -> tuple[jax.Array, jax.Array]:
    """Returns labels without NaN, and where they were asked, as `label` and `label_mask` say.

    Both have the shape of `label`: (l,) of one example, (b, l) of a batch.
    """
    label = views["label"].astype(jnp.float32)
    asked = ~jnp.isnan(label)
    if "label_mask" in views:
        asked &= views["label_mask"].astype(bool)
    return jnp.where(asked, label, 0), asked


def _multi_label(
    logits: jax.Array, label: jax.Array, asked: jax.Array, weights: jax.Array
) -> jax.Array:
    """Returns (views,) mean over labels of the cross-entropy, positives weighted, unasked zero."""
    positive, negative = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    loss = -(weights * label * positive + (1 - label) * negative)
    return jnp.mean(jnp.where(asked, loss, 0), axis=-1)


def _multi_class(
    logits: jax.Array, label: jax.Array, asked: jax.Array, weights: jax.Array
) -> jax.Array:
    """Returns (views,) weighted cross-entropy of the one true class, zero unless all were asked."""
    loss = -jnp.sum(weights * label * jax.nn.log_softmax(logits), axis=-1)
    return jnp.where(jnp.all(asked, axis=-1), loss, 0)
