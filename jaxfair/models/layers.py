"""Convolutions and dropout: torch's semantics, written for per-example gradients.

Three facts about XLA shape this file. A convolution on a tiny map runs far below the speed
of a matrix product, so a small map is cut into patches and multiplied. On CPU the gradients of
a convolution on a larger map are slow too (a filter gradient at a third of the speed of the
product that it is, far less on large maps and in three dimensions), and under `vmap` a filter
gradient becomes a grouped convolution; so there they are products of patches. And the filter
gradient of a dilated input (a transposed convolution) is slow everywhere; so an upsampling
convolution is written as a stride-1 convolution to all its phases, which interleave to the
output.

Arrays are channel-last with one batch axis: (b, *spatial, c); `ndim` is the number of
spatial axes, 2 or 3, and is read off the input.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxfair.errors import InputError
from jaxfair.models.norms import standardised

__all__ = [
    "Conv",
    "UpConv",
    "convolve",
    "convolve_plain",
    "dense",
    "dropout_channels",
    "he_normal",
    "interleave_phases",
    "max_pool",
    "mish",
    "phases_from_transposed",
    "torch_uniform",
]

PATCH_LIMIT = 2**19
"""Patches are made where one example's patch matrix has at most this many entries (2 MiB)."""

PATCH_POSITIONS = 16
"""and at most this many output positions; larger maps use XLA's convolution."""

GRADIENTS_BY_PATCHES = ("cpu",)
"""Backends on which the gradients of a convolution are products of patches,"""

INPUT_GRADIENT_LIMIT = 2**18
"""where one example's patch matrix has at most this many entries (1 MiB) for the gradient of the
input: whole steps that add up larger ones were slower than with XLA's own gradient,"""

FILTER_GRADIENT_LIMIT = 2**24
"""and this many (64 MiB) for the gradient of the filter, for the sake of memory alone."""

SLICED_POOLS = ("cpu",)
"""Backends on which a max-pool goes axis by axis, by slices: the gradient of XLA's own runs there
on one thread, and that of all nine slices at once is one loop that makes each of them again for
every entry (after Mish on (16, 64, 64, 64) 195 ms; axis by axis, 28)."""


class Conv(nn.Module):
    """A convolution with torch's padding and torch's default initialisation.

    Input (b, *spatial, c), output (b, *spatial', features); `padding` zeros on both sides
    of every spatial axis, so spatial' = (spatial + 2 padding - kernel) // stride + 1.
    The kernel has shape (*kernel, c, features); x is rounded to its dtype. With `channels`, c is
    that, and an x of one channel counts as repeated to it: read once, by the kernel's sum over c.
    With `trained` False no filter gradient is ever asked for, and XLA's convolution serves
    maps of every size. With `standardise` it multiplies by the `standardised` kernel.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer | None = None
    trained: bool = True
    channels: int | None = None
    standardise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = (self.kernel,) * (x.ndim - 2)
        channels = self.channels or x.shape[-1]
        fan_in = math.prod(window) * channels
        init = self.kernel_init or torch_uniform(fan_in)
        kernel = self.param("kernel", init, (*window, channels, self.features))
        kernel = standardised(kernel) if self.standardise else kernel
        if x.shape[-1] == 1 < channels:
            kernel = jnp.sum(kernel, axis=-2, keepdims=True)
        how = convolve if self.trained else convolve_plain
        y = how(x.astype(kernel.dtype), kernel, stride=self.stride, padding=self.padding)
        if self.use_bias:
            y = y + self.param("bias", torch_uniform(fan_in), (self.features,))
        return y


class UpConv(nn.Module):
    """torch's ConvTranspose without bias that multiplies every spatial axis by `stride`.

    `kernel` must be an odd multiple of `stride`; torch's padding is then
    (kernel - stride) / 2. Kernel 6, stride 2, padding 2 doubles a map. The parameter
    `kernel` is stored by phases, (*taps, c, stride^n * features) with taps = kernel / stride:
    output position stride * i + r reads a window of `taps` inputs around i, so all
    phases r together are one stride-1 convolution. `phases_from_transposed` turns an
    ordinary kernel into this form. With `standardise` the filter of each phase is standardised.
    """

    features: int
    kernel: int
    stride: int = 2
    standardise: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n = x.ndim - 2
        taps = _taps(self.kernel, self.stride)
        fan_in = self.features * self.kernel**n
        shape = (*(taps,) * n, x.shape[-1], self.stride**n * self.features)
        kernel = self.param("kernel", torch_uniform(fan_in), shape)
        kernel = standardised(kernel) if self.standardise else kernel
        y = convolve(x.astype(kernel.dtype), kernel, stride=1, padding=taps // 2)
        return interleave_phases(y, self.stride)


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Returns the cross-correlation of x (b, *spatial, c) with kernel (*window, c, p).

    Equal to `lax.conv_general_dilated` with explicit symmetric padding; small maps go
    through patches and one matrix product, and so does every window of one position, whose
    patches are x itself.
    """
    positions = math.prod(_positions(x, kernel, stride, padding))
    entries = _patch_entries(x, kernel, stride, padding)
    small = positions <= PATCH_POSITIONS and entries <= PATCH_LIMIT
    if small or entries == positions * x.shape[-1]:
        return _convolve_patches(x, kernel, stride, padding)
    if entries <= FILTER_GRADIENT_LIMIT and jax.default_backend() in GRADIENTS_BY_PATCHES:
        return _convolve_forward(x, kernel, stride, padding)
    return convolve_plain(x, kernel, stride=stride, padding=padding)


def convolve_plain(x: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Returns the same as `convolve`, by XLA's convolution whatever the size."""
    n = x.ndim - 2
    letters = "DHW"[-n:]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * n,
        ((padding, padding),) * n,
        dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolve_forward(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Returns `convolve_plain`; its gradients are those of `_convolve_patches` where that pays."""
    return convolve_plain(x, kernel, stride=stride, padding=padding)


@_convolve_forward.defjvp
def _convolve_tangent(
    stride: int, padding: int, primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel) = primals, tangents
    if _patch_entries(x, kernel, stride, padding) <= INPUT_GRADIENT_LIMIT:
        by_input = _convolve_patches(dx, kernel, stride, padding)
    else:
        by_input = convolve_plain(dx, kernel, stride=stride, padding=padding)
    by_kernel = _convolve_patches(x, dkernel, stride, padding)
    return _convolve_forward(x, kernel, stride, padding), by_input + by_kernel


def _convolve_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Returns the same as `convolve_plain`, as one matrix product of patches."""
    out = _positions(x, kernel, stride, padding)
    columns = _patches(x, kernel.shape[:-2], out, stride, padding)
    weight = kernel.reshape(-1, kernel.shape[-1])
    return jax.lax.dot_general(columns, weight, (((columns.ndim - 1,), (0,)), ((), ())))


def _positions(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> tuple[int, ...]:
    """Returns the spatial shape of the output."""
    sizes = zip(x.shape[1:-1], kernel.shape, strict=False)
    return tuple((s + 2 * padding - k) // stride + 1 for s, k in sizes)


def _patch_entries(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> int:
    """Returns how many entries the patch matrix of one example has."""
    return math.prod(_positions(x, kernel, stride, padding)) * math.prod(kernel.shape[:-1])


def interleave_phases(y: jax.Array, stride: int) -> jax.Array:
    """Returns (b, *spatial * stride, c) from (b, *spatial, stride^n * c), phases outermost."""
    b, *spatial, _ = y.shape
    y, n = y.reshape(b, *spatial, *(stride,) * len(spatial), -1), len(spatial)
    order = [0, *itertools.chain(*((1 + i, 1 + n + i) for i in range(n))), 1 + 2 * n]
    return y.transpose(order).reshape(b, *(s * stride for s in spatial), -1)


def phases_from_transposed(weight: jax.Array, stride: int) -> jax.Array:
    """Returns `UpConv`'s kernel from torch's ConvTranspose weight (c_in, c_out, *kernel).

    Output stride*i + r receives input i + 1 - t (t = 0, 1, ..., taps - 1, taps = 3) through
    the weight at stride*t + r, hence the reversed taps.
    """
    c_in, c_out, *window = weight.shape
    n, taps = len(window), _taps(window[0], stride)
    w = weight.reshape(c_in, c_out, *(m for _ in range(n) for m in (taps, stride)))
    w = jnp.flip(w, axis=tuple(2 + 2 * i for i in range(n)))
    order = [*(2 + 2 * i for i in range(n)), 0, *(3 + 2 * i for i in range(n)), 1]
    return w.transpose(order).reshape(*(taps,) * n, c_in, stride**n * c_out)


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """torch's default for weights and biases: uniform within 1 / sqrt(fan_in) of zero."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Kaiming-normal by fan-out, as torchvision initialises ResNets."""


def mish(x: jax.Array) -> jax.Array:
    """x tanh(softplus(x)) (Misra 2019), from one exponential: tanh(log(1 + e)) = w / (w + 2)."""
    e = jnp.exp(jnp.minimum(x, 10))  # beyond, the quotient is 1 in float32
    w = e * (e + 2)
    return x * (w / (w + 2))


def max_pool(x: jax.Array) -> jax.Array:
    """torch's 3-wide max-pool of stride 2 with padding 1 (of minus infinity).

    A gradient goes to the first of equal entries, in both ways alike.
    """
    n = x.ndim - 2
    if jax.default_backend() not in SLICED_POOLS:
        return nn.max_pool(x, (3,) * n, strides=(2,) * n, padding=((1, 1),) * n)
    for axis in reversed(range(1, n + 1)):  # so that the first of equals is the first in order
        x = _max_pool_along(x, axis)
    return x


def _max_pool_along(x: jax.Array, axis: int) -> jax.Array:
    """Returns the max-pool along one axis, of the entries before, at and after each even one."""
    fill = [(0, 0)] * x.ndim
    fill[axis] = (0, x.shape[axis] % 2)
    x = jnp.pad(x, fill, constant_values=-jnp.inf)
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    at, after = (half.squeeze(axis + 1) for half in jnp.split(pairs, 2, axis + 1))
    fill[axis] = (1, 0)
    before = jnp.pad(after, fill, constant_values=-jnp.inf)
    before = jax.lax.slice_in_dim(before, 0, at.shape[axis], axis=axis)
    later = lambda a, b: jnp.where((b > a) | jnp.isnan(b), b, a)
    return later(later(before, at), after)


def dense(features: int, fan_in: int, name: str | None = None) -> nn.Dense:
    """A linear layer with torch's default initialisation of weight and bias."""
    init = torch_uniform(fan_in)
    return nn.Dense(features, kernel_init=init, bias_init=init, name=name)


def dropout_channels(rate: float, x: jax.Array, *, train: bool) -> jax.Array:
    """torch's Dropout2d (3d): drops whole channels of each example; needs the rng "dropout"."""
    return nn.Dropout(rate, tuple(range(1, x.ndim - 1)), deterministic=not train)(x)


def _patches(
    x: jax.Array, window: tuple[int, ...], out: tuple[int, ...], stride: int, padding: int
) -> jax.Array:
    """Returns (b, *out, prod(window) * c), the window outermost, by strided slices."""
    x = jnp.pad(x, ((0, 0), *((padding, padding),) * len(out), (0, 0)))
    seen = []
    for corner in itertools.product(*(range(k) for k in window)):
        ends = (i + stride * (o - 1) + 1 for i, o in zip(corner, out))
        limits = (x.shape[0], *ends, x.shape[-1])
        steps = (1, *(stride,) * len(out), 1)
        seen.append(jax.lax.slice(x, (0, *corner, 0), limits, steps))
    return jnp.concatenate(seen, axis=-1)


def _taps(kernel: int, stride: int) -> int:
    taps, rest = divmod(kernel, stride)
    if rest or taps % 2 == 0:
        raise InputError(
            f"An upsampling convolution of stride {stride} cannot have kernel {kernel}; "
            f"use an odd multiple of the stride, as {3 * stride}."
        )
    return taps
