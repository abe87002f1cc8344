"""What a real `train.run` does, recorded where the step is called, and what it should have done.

The training is that of a config, on drawn patients with several images each, of whom there are
other numbers than the config declares. Scoring and report are left out. What is recorded is what
the compiled step was given; the truth beside it is made of the manifest, the config and the secret.
"""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import tempfile
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np

from jaxfair import train
from jaxfair.config import load_config, settings_from_config
from jaxfair.engine import assembly
from jaxfair.engine.step import Step
from jaxfair.errors import InputError
from jaxfair.start import open_data
from tests.test_phantoms import FILMS, FOLDER

__all__ = ["SIZES", "Call", "Real", "config_of", "real_run", "stopped_before_scoring"]

HOME = tempfile.TemporaryDirectory(prefix="recorded")
STEPS, BATCH, PUBLIC = 4, 8, 70
SIZES = {
    "data.public_size": PUBLIC,
    "train.steps": STEPS,
    "train.expected_batch_size": BATCH,
    "dp.epsilon": 8.0,
    "dp.delta": 1e-5,
}
"""Of every config here, so that its noise is sought once."""


class Call(NamedTuple):
    """One call of the step: what it got (as numpy), and what it gave back to be written."""

    params: Any
    frozen: Any
    chunk: Any
    randomness: Any
    is_last: bool
    released: dict[str, float]

    @property
    def ids(self):
        return self.chunk.unit_id[~self.chunk.is_padding]

    def rows(self, name):
        return self.chunk.examples[name][~self.chunk.is_padding]


@dataclasses.dataclass(frozen=True)
class Real:
    """A training that has ended: its settings, its data, its trainer and the calls of each step."""

    settings: Any
    dataset: Any
    trainer: Any
    steps: list[list[Call]]

    @property
    def calls(self):
        return [call for step in self.steps for call in step]

    @property
    def secret(self):
        return self.trainer._books.secret

    @functools.cached_property
    def patients(self):
        """The rows of each training patient by the hash of the id, in the order of the ids."""
        table = self.dataset.manifest
        table = table[table["split"] == "train"]
        return {hashed(name): np.asarray(rows) for name, rows in sorted(rows_of(table).items())}


def rows_of(table):
    found: dict[str, list[int]] = {}
    for row, name in table["patient_id"].items():
        found.setdefault(str(name), []).append(row)
    return found


def hashed(name):
    return int(np.frombuffer(hashlib.sha256(name.encode()).digest()[:4], np.uint32)[0])


def config_of(**overrides):
    """A head on fixed features: `prepare`, two leaves, and little to compile."""
    config = load_config(f"{FOLDER / 'derm_probe'}.py:phantom")
    sizes = SIZES | {
        "data.root": str(pathlib.Path(HOME.name) / "phantoms"),
        "train.checkpoint_every": 2,
        "optim.learning_rate": 0.1,
        "dp.l2_clip_norm": 0.05,  # below the norm of most gradients
    }
    with config.unlocked():
        config.update_from_flattened_dict(FILMS | sizes)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return config


@contextlib.contextmanager
def stopped_before_scoring():
    """`train.run` trains alone."""
    with (
        mock.patch.object(train.evaluate, "run", lambda *given, **how: None),
        mock.patch.object(train.report, "run", lambda *given, **how: None),
    ):
        yield


@functools.lru_cache(maxsize=4)
def real_run(devices: int = 1, again: int = 0) -> Real:
    """Trains, on so many devices, in a folder of its own; `again` makes another run of the kind."""
    calls, trainers = [], []
    make_step, open_assembly = assembly.make_step, train.open_assembly

    def recording(*given, **how):
        step = make_step(*given, **how)

        def update(state, frozen, chunk, randomness, is_last):
            got = jax.device_get((state.params, frozen, chunk, randomness))
            state, released = step.update(state, frozen, chunk, randomness, is_last)
            calls.append(Call(*got, bool(is_last), {k: float(v) for k, v in released.items()}))
            return state, released

        return Step(step.init, update)

    def opened(*given, **how):
        trainers.append(open_assembly(*given, **how))
        return trainers[-1]

    config = config_of()
    with (
        stopped_before_scoring(),
        mock.patch.object(assembly, "make_step", recording),
        mock.patch.object(train, "open_assembly", opened),
    ):
        try:
            train.run(config, tempfile.mkdtemp(dir=HOME.name), num_devices=devices, progress=False)
        except InputError as error:  # by which the package has seen a fault itself
            raise AssertionError(f"A run that is in order was refused: {error}") from error
    settings = settings_from_config(config)
    data = open_data(settings, progress=False)
    return Real(settings, data, trainers[-1], _by_step(calls))


def _by_step(calls):
    steps = [[]]
    for call in calls:
        steps[-1].append(call)
        if call.is_last:
            steps.append([])
    return steps[:-1]
