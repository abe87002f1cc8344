"""From step numbers to chunks on the mesh: who is drawn, which image, which keys."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxfair.data.loader import Fields, gather
from jaxfair.engine.mesh import local_part, put_batch
from jaxfair.engine.step import Randomness
from jaxfair.privacy import noise, sampling
from jaxfair.privacy.secret import Secret

__all__ = ["Feed", "Piece", "Population", "make_population"]


class Population(NamedTuple):
    """The units that may be drawn; private, written nowhere.

    Attributes:
      rows: store rows of each unit, at least one.
      ids: uint32 (n,), a hash of each unit's id: the same whoever else takes part.
    """

    rows: list[np.ndarray]
    ids: np.ndarray


class Piece(NamedTuple):
    """What one chunk is made of, before anything is read.

    Attributes:
      rows: (chunk_size,) int64 store rows, -1 for padding.
      ids: (chunk_size,) uint32, the unit of each row; 0 for padding.
      randomness: of the step that the chunk belongs to.
      is_last: whether the draw of that step ends with this chunk.
    """

    rows: np.ndarray
    ids: np.ndarray
    randomness: Randomness
    is_last: bool


class Feed(NamedTuple):
    """Everything that decides what a step is given.

    Attributes:
      secret: keys the draw, the choice of an image, the noise and what is random inside an
        example, each under a purpose of its own.
      sampling_prob: q of every unit in every step.
      num_leaves: how many leaves of the parameters need noise keys.
      chunk_size: rows of one chunk, the same for every draw.
    """

    secret: Secret
    population: Population
    fields: Fields
    mesh: jax.sharding.Mesh
    sampling_prob: float
    num_leaves: int
    chunk_size: int

    def chunks(
        self, first: int, count: int
    ) -> Iterator[tuple[dict[str, jax.Array], Randomness, bool]]:
        """Yields (chunk, randomness, is_last) for steps `first` to `first + count - 1`."""
        for piece in self.pieces(first, count):
            part = local_part(self.mesh, len(piece.rows))
            batch = gather(self.fields, piece.rows[part], piece.ids[part])
            yield put_batch(self.mesh, batch), piece.randomness, piece.is_last

    def pieces(self, first: int, count: int) -> Iterator[Piece]:
        """Yields what the chunks of these steps are made of.

        An empty draw gives one chunk of padding: a step is a step, whoever took part.
        """
        for number in range(first, first + count):
            randomness = self.randomness(number)
            parts = sampling.chunks_from_draw(self.draw(number), self.chunk_size)
            for place, part in enumerate(parts, start=1):
                rows, ids = self._rows(number, part)
                yield Piece(rows, ids, randomness, place == len(parts))

    def draw(self, number: int) -> np.ndarray:
        """Returns the indices of the units drawn for step `number`."""
        return sampling.poisson_draw(
            self.secret,
            number,
            num_units=len(self.population.rows),
            sampling_prob=self.sampling_prob,
        )

    def randomness(self, number: int) -> Randomness:
        """Returns the key material of step `number`."""
        words = np.frombuffer(self.secret.derive("example", number, length=8), np.uint32)
        return Randomness(words, noise.noise_key_data(self.secret, number, self.num_leaves))

    def _rows(self, number: int, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        units = part[part != sampling.PADDING]
        rows = np.full(len(part), -1, np.int64)
        ids = np.zeros(len(part), np.uint32)
        rows[: len(units)] = sampling.draw_images(
            self.secret, number, units, self.population.rows, self.population.ids
        )
        ids[: len(units)] = self.population.ids[units]
        return rows, ids


def make_population(ids: Sequence[str], rows: Sequence[np.ndarray]) -> Population:
    """Returns the population of units with these ids and store rows; an id occurs once."""
    if len(set(ids)) < len(ids):
        raise ValueError(f"{len(ids) - len(set(ids))} units occur twice: each may be drawn once.")
    hashes = [hashlib.sha256(name.encode()).digest()[:4] for name in ids]
    return Population(list(rows), np.frombuffer(b"".join(hashes), np.uint32))
