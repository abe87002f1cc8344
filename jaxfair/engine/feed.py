"""From step numbers to chunks on the mesh: who is drawn, which image, which keys."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from jaxfair.data.loader import Fields
from jaxfair.engine.chunk import Chunk, ChunkRows, Randomness, gather, rows_of_draw
from jaxfair.engine.mesh import local_rows, put_sharded
from jaxfair.engine.population import Population
from jaxfair.privacy import noise, sampling
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import Secret

__all__ = ["Feed"]


class Feed(NamedTuple):
    """Everything that decides what a step is given.

    Attributes:
      secret: keys the draw, the choice of an image, the noise and what is random inside an
        example, each under a purpose of its own.
      plan: draws; nobody else knows a sampling probability.
      num_leaves: how many leaves of the parameters need noise keys.
      chunk_size: rows of one chunk, the same for every draw.
    """

    secret: Secret
    plan: PrivacyPlan
    population: Population
    fields: Fields
    mesh: jax.sharding.Mesh
    num_leaves: int
    chunk_size: int

    def chunks(self, first: int, count: int) -> Iterator[tuple[Chunk, Randomness, bool]]:
        """Yields (chunk, randomness, is_last) for steps `first` to `first + count - 1`."""
        for asked in self.chunk_rows(first, count):
            here = local_rows(self.mesh, len(asked.rows))
            chunk = gather(self.fields, asked.rows[here], asked.ids[here])
            yield put_sharded(self.mesh, chunk), asked.randomness, asked.is_last

    def chunk_rows(self, first: int, count: int) -> Iterator[ChunkRows]:
        """Yields who is in the chunks of these steps.

        Each step has the plan's number of chunks, an empty draw too: a step is a step, whoever
        took part.
        """
        least = self.plan.least_chunks(self.chunk_size)
        for number in range(first, first + count):
            draw, people = self.draw(number), self.population
            rows = sampling.draw_images(self.secret, number, draw, people.rows, people.ids)
            keys = self.randomness(number)
            yield from rows_of_draw(rows, people.ids[draw], keys, self.chunk_size, least)

    def draw(self, number: int) -> np.ndarray:
        """Returns the indices of the units drawn for step `number`."""
        return self.plan.draw(self.secret, number, self.population.groups)

    def randomness(self, number: int) -> Randomness:
        """Returns the key material of step `number`."""
        words = np.frombuffer(self.secret.derive("example", number, length=8), np.uint32)
        leaves = noise.noise_key_data(self.secret, number, self.num_leaves)
        asked = len(self.plan.rule.queries) if self.plan.rule else 0
        answers = noise.answer_key_data(self.secret, number, asked) if asked else None
        return Randomness(words, leaves, answers)
