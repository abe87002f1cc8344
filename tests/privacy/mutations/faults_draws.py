"""Faults of draws, steps and noise: each puts back a bug that some system has had."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxfair.data.dataset import Dataset
from jaxfair.engine import population, step
from jaxfair.engine.feed import Feed
from jaxfair.privacy import noise, plan, promise, sampling
from jaxfair.privacy import secret as secrets_room
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import insecure_secret, os_secret
from jaxfair.run import fingerprint
from tests.privacy import toy
from tests.privacy.mutations.putting import replaced, wrapped


@contextlib.contextmanager
def fault_02_delta_and_rate_follow_from_the_size_of_the_private_table():
    """Opacus: sample rate and normaliser from len(dataset)."""
    sizes = []

    def make_population(original, ids, rows, **facts):
        sizes.append(len(ids))
        return original(ids, rows, **facts)

    def make_plan(original, config, *, steps, expected_batch_size, public_size):
        fields = {"steps": steps, "expected_batch_size": expected_batch_size}
        return original(config, public_size=sizes[-1], **fields)

    with (
        wrapped(population, "make_population", make_population),
        wrapped(plan, "make_plan", make_plan),
    ):
        yield


def fault_11_shuffled_batches_are_accounted_as_poisson():
    """fastDP, Keras in JAX-Privacy; fair-uad-with-dp trains on the loader it did not account."""

    def shuffled(secret, number, *, num_units, sampling_prob):
        size = max(1, round(num_units * sampling_prob))
        epoch, place = divmod(number * size, num_units - num_units % size)
        return np.random.default_rng(epoch).permutation(num_units)[place : place + size]

    return replaced(sampling, "poisson_draw", shuffled)


def fault_12_patients_with_more_images_are_drawn_more_often():
    """Opacus #813: a weighted sampler, accounted at the uniform rate."""

    def draw(self, number):
        counts = np.array([len(rows) for rows in self.population.rows])
        probs = np.minimum(1, self.plan.sampling_prob * counts / counts.mean())
        return np.flatnonzero(np.random.default_rng(number).random(len(counts)) < probs)

    return replaced(Feed, "draw", draw)


def fault_13_a_person_listed_twice_is_two_units():
    """fair-uad-with-dp upsamples the smaller group by copying rows."""

    def units(self, unit, split="train"):
        rows = self.rows(split)
        return [str(self.manifest["patient_id"][row]) for row in rows], [
            np.array([r]) for r in rows
        ]

    return replaced(Dataset, "units", units)


def fault_15_every_chunk_is_a_step_of_its_own():
    """TF-Privacy adds noise per sub-step; Opacus' ghost optimiser counts one accumulation."""

    def chunks(original, self, first, count):
        return ((chunk, words, True) for chunk, words, _ in original(self, first, count))

    return wrapped(Feed, "chunks", chunks)


def fault_22_an_empty_draw_is_skipped():
    """Opacus' distributed sampler: `if len(selected) > 0: yield`."""

    def chunks(original, draw, size, least):
        return original(draw, size, least) if len(draw) else []

    return wrapped(sampling, "chunks_from_draw", chunks)


def fault_24_each_image_of_a_patient_is_a_unit():
    """Record-level clipping and sampling, quoted per patient (tayebiarasteh/DP_CXR)."""

    def make_population(original, ids, rows, **facts):
        each = [(f"{name}/{row}", row) for name, own in zip(ids, rows) for row in own]
        rows = [np.array([row]) for _, row in each]
        return original([name for name, _ in each], rows, **facts)

    return wrapped(toy, "make_population", make_population)


def fault_30_the_shape_of_a_chunk_depends_on_the_draw():
    """Padding to a multiple of eight: the compile cache tells the realised sizes."""

    def chunks(original, draw, size, least):
        return original(draw, max(1, -(-len(draw) // 4)) * 4, least)

    return wrapped(sampling, "chunks_from_draw", chunks)


def fault_31_a_large_draw_is_cut_to_the_buffer():
    """Truncation without truncated accounting."""
    cut = lambda original, draw, size, least: original(draw, size, least)[:1]
    return wrapped(sampling, "chunks_from_draw", cut)


def fault_34_the_sum_is_not_cleared_after_an_update():
    """A forgotten zero_grad."""

    def finish(original, state, *rest):
        after, released = original(state, *rest)
        return after._replace(clipped_sum=state.clipped_sum), released

    return wrapped(step, "_finish", finish)


def fault_16_noise_for_a_mean_is_added_to_a_sum():
    """JAX-Privacy's example, issue 383."""

    def stddev(original, self):
        return original(self) / self.expected_batch_size

    return wrapped(PrivacyPlan, "noise_stddev", stddev)


def fault_17_leaves_share_their_keys():
    """jax pull request 3646: one key for all leaves of a shape."""

    def key_data(original, secret, number, num_leaves):
        return np.repeat(original(secret, number, 1), num_leaves, axis=0)

    return wrapped(noise, "noise_key_data", key_data)


def fault_18_the_secret_comes_from_the_global_generator():
    """JAX-Privacy: jax.random.key(np.random.randint(0, 2**31))."""
    drawn = lambda count: np.random.bytes(count)  # noqa: NPY002
    return replaced(secrets_room.secrets, "token_bytes", drawn)


def fault_19_a_resumed_run_draws_a_new_secret():
    """JAX-Privacy: fit(dataset, state) with its default seed draws the batches anew."""
    return replaced(promise, "load_secret", lambda folder: os_secret())


def fault_20_the_noise_does_not_depend_on_the_data():
    """A second run with the same seed after the data was put right."""
    return replaced(fingerprint, "check", lambda *arguments, **options: None)


def fault_21_every_device_adds_the_noise():
    """Noise before the sum over devices."""

    def sum_grads(original, self, loss_fn, params, batch, keys, mask):
        total = original(self, loss_fn, params, batch, keys, mask)
        words = jnp.asarray(noise.noise_key_data(insecure_secret(5), 0, len(total)))
        drawn = noise.gaussian_like(total, words, self.noise_stddev())
        return jax.tree.map(jnp.add, total, drawn)

    return wrapped(PrivacyPlan, "sum_grads", sum_grads)


def fault_33_second_moments_see_the_sum_before_the_noise():
    """Adam's state from gradients that nobody has noised yet."""

    def finish(original, state, chosen, optimizer, words):
        def update(grads, opt_state, params):
            updates, _ = optimizer.update(grads, opt_state, params)
            return updates, optimizer.update(state.clipped_sum, opt_state, params)[1]

        leaky = optax.GradientTransformation(optimizer.init, update)
        return original(state, chosen, leaky, words)

    return wrapped(step, "_finish", finish)


def fault_38_a_noise_value_is_one_float32_normal():
    """One 64-bit key, few distinct values."""

    def normal(words, shape, stddev):
        key = jax.random.wrap_key_data(words[0], impl="threefry2x32")
        return jax.random.normal(key, shape, jnp.float32) * jnp.float32(stddev)

    return replaced(noise, "_normal", normal)


@contextlib.contextmanager
def fault_29_the_share_of_clipped_examples_is_logged():
    """Exact statistics of a batch beside a noisy gradient."""
    leak = lambda state: {"clipped_norm": optax.tree.norm(state.clipped_sum)}

    def finish(original, state, *rest):
        after, released = original(state, *rest)
        return after, released | leak(state)

    keep = lambda original, state: (state, original(state)[1] | leak(state))
    with wrapped(step, "_finish", finish), wrapped(step, "_keep", keep):
        yield
