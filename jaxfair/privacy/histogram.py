"""One noisy histogram of evaluation patients: who counts how much, what is paid, and the noise.

Guarantees (protocol P18), for neighbours by adding or removing one patient with all images:
  * a patient belongs to one part of the evaluation, by his own rows alone: `tests` if any of his
    rows is a test row, else `validation`; rows of the other part count for nothing;
  * within one question (a vector of counts) the rows of a patient share one unit of mass, so that
    he moves it by at most 1 in l2 norm, however many rows he has. Masses are whole multiples of
    2^-30, added as integers: nothing rounds, and sums below 2^23 patients are exact as float64;
  * of counts h in rows of bins the question is B h (strategy.py), which he moves by at most 1 too.
    Its answer B h + noise is told as B^-1 of it, h + B^-1 noise: one follows from the other;
  * all questions of a part are one Gaussian event at their joint noise multiplier (protocol P1),
    and a patient is in one part, so that the release is one event at the smaller of the two,
    whatever later questions make of earlier answers;
  * the event is in the ledger, which refuses what exceeds its budget, before any answer is given;
  * a question that was not priced gets no answer, and none is answered twice;
  * noise is keyed by a secret of the operating system that is kept nowhere, a key for each
    question; answers are rounded to 1/256 after the noise, which hides its last bits.

What a question asks may depend on earlier answers, and its names and shape on public constants;
neither on the rows.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import BudgetExceeded, Entry, Ledger
from jaxfair.privacy.noise import gaussian_like, noise_key_data
from jaxfair.privacy.queries import Query, joint
from jaxfair.privacy.secret import Secret
from jaxfair.privacy.strategy import covariance, strategy

__all__ = [
    "EVALUATED",
    "PARTS",
    "Answers",
    "People",
    "Price",
    "open_answers",
    "price",
    "unit_histogram",
]

Ints = npt.NDArray[np.int64]

EVALUATED = "evaluation patients"
"""The population of a release in its ledger."""
PARTS = ("validation", "tests")
STAGE = "release"
SENSITIVITY = 1.0
LARGEST = 100.0
"""The largest epsilon of a release; it protects nobody at this size."""
_UNIT = 2**30
_GRID = 256


class People(NamedTuple):
    """Whose rows they are: patient (n,) codes, 0 or more; tests (n,) whether it is a test row."""

    patient: Ints
    tests: npt.NDArray[np.bool_]


class Price(NamedTuple):
    """What a release costs.

    Attributes:
      queries: part -> its questions; the sensitivity of each is 1.
      noise_multiplier: of the one event: the smaller of the two parts' joint multipliers.
    """

    queries: Mapping[str, tuple[Query, ...]]
    noise_multiplier: float

    @property
    def event(self) -> Event:
        return Event(1.0, self.noise_multiplier, 1)


def price(epsilon: float, delta: float, questions: Mapping[str, tuple[str, ...]]) -> Price:
    """Returns the noise with which these questions, by part, together cost at most `epsilon`.

    The budget of a part is split evenly: each of its m questions has sqrt(m) times the noise.

    Raises InputError for an epsilon outside (0, LARGEST], and a part without questions.

    >>> found = price(1.0, 1e-5, {"validation": ("range",), "tests": ("sex", "age_group")})
    >>> round(found.noise_multiplier, 2), round(found.queries["tests"][0].noise_multiplier, 2)
    (3.73, 5.28)
    """
    if not 0 < epsilon <= LARGEST:
        raise InputError(
            f"release.epsilon is {epsilon:g}; it must be positive, and at most {LARGEST:g}: above, "
            "tables protect nobody."
        )
    if set(questions) != set(PARTS) or not all(questions.values()):
        raise InputError(f"A release asks something of each of {', '.join(PARTS)}; {questions}.")
    sigma = accounting.noise_multiplier_from_epsilon(epsilon, delta, 1.0, 1)
    queries = {}
    for part, names in questions.items():
        each = sigma * len(names) ** 0.5
        while joint([Query("all", 1.0, each)] * len(names)) < sigma:
            each *= 1 + 1e-12
        queries[part] = tuple(Query(name, SENSITIVITY, each) for name in names)
    return Price(queries, min(joint(asked) for asked in queries.values()))


def unit_histogram(patient: Ints, cell: Ints, size: int) -> npt.NDArray[np.float64]:
    """Returns (size,) masses: each patient's rows share one unit.

    Guarantee: adding or removing one patient moves it by at most 1, in l1 and so in l2 norm.

    Args:
      patient: (n,) codes of the rows of one question.
      cell: (n,) 0 to size - 1.

    Raises ValueError for a cell outside.

    >>> unit_histogram(np.array([0, 0, 1]), np.array([0, 1, 1]), 3).tolist()
    [0.5, 1.5, 0.0]
    """
    if len(cell) and not (cell.min() >= 0 and cell.max() < size):
        raise ValueError(f"cells lie in 0 to {size - 1}, got {cell.min()} to {cell.max()}.")
    images = np.bincount(patient, minlength=1)
    total = np.zeros(size, np.int64)
    np.add.at(total, cell, _UNIT // images[patient])
    return total / _UNIT


class Answers:
    """Gives each priced question one noisy answer; made by `open_answers`, which pays first.

    Attributes:
      price: what was paid for.
    """

    def __init__(self, price: Price, secret: Secret, people: People) -> None:
        self.price, self._secret, self._people = price, secret, people
        names = [(part, query) for part in PARTS for query in price.queries[part]]
        self._open = {(part, q.name): (number, q) for number, (part, q) in enumerate(names)}

    def noise_sd(self, part: str) -> float:
        """Returns the standard deviation of the noise on each sum that `part` is asked for."""
        return self.price.queries[part][0].noise_stddev

    def noise(self, part: str, bins: int) -> npt.NDArray[np.float64]:
        """Returns the covariance (bins, bins) of the noise on a row of bins asked of `part`."""
        return self.noise_sd(part) ** 2 * covariance(bins)

    def ask(
        self, part: str, name: str, about: npt.NDArray[np.bool_], cell: Ints, size: int, bins: int
    ) -> npt.NDArray[np.float64]:
        """Returns the noisy histogram (size,) of a question over the patients of `part`.

        Args:
          about: (n,) rows that the question is about, each by its own content (those of a label).
          cell: (n,) 0 to size - 1, of all rows.
          bins: length of the rows of cells whose noise is that of `noise`, each row's its own; 1
            for independent noise on each count.

        Raises ValueError for a question that was not priced, or that was answered, and a size that
        is no multiple of bins.
        """
        if (part, name) not in self._open:
            raise ValueError(f"{name!r} of {part} was not paid for, or has had its answer.")
        number, query = self._open.pop((part, name))
        patient, tests = self._people
        rows = about & _counts(patient, tests) & (tests == (part == PARTS[1]))
        masses = unit_histogram(patient[rows], cell[rows], size)
        words = noise_key_data(self._secret, number, num_leaves=1)
        shape = {"masses": np.zeros(size, np.float32)}
        noise = gaussian_like(shape, jnp.asarray(words), query.noise_stddev)["masses"]
        told = np.linalg.solve(strategy(bins), np.asarray(noise, float).reshape(-1, bins).T).T
        return np.round((masses + told.ravel()) * _GRID) / _GRID

    def unanswered(self) -> list[str]:
        """Returns the names of priced questions that nobody has asked yet."""
        return [name for _, name in self._open]


def open_answers(price: Price, ledger: Ledger, secret: Secret, people: People) -> Answers:
    """Pays for a release and returns what answers it; the line is on disk before.

    Raises BudgetExceeded where the ledger's budget does not hold all releases together, and
    InputError where the secret has answered before.
    """
    draws = secret.tag("draws", EVALUATED)
    if any(entry.draws == draws for entry in ledger.entries):
        raise InputError("This secret has answered a release before; each one needs its own.")
    event = price.event
    entry = Entry(STAGE, EVALUATED, draws, 0, 1, event.sampling_prob, event.noise_multiplier)
    try:
        ledger.charge(entry)
    except BudgetExceeded as error:
        spent = accounting.epsilon([*(e.event for e in ledger.entries), event], ledger.delta)
        raise BudgetExceeded(
            f"All releases about these people would cost epsilon {spent:.4f} together, above the "
            f"budget of {ledger.budget}: raise --release.budget if so much may be told of them."
        ) from error
    return Answers(price, secret, people)


def _counts(patient: Ints, tests: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Whether each row is of the part that its patient is in, by the patient's own rows."""
    tested = np.zeros(patient.max(initial=-1) + 1, bool)
    tested[patient[tests]] = True
    return np.asarray(tests == tested[patient])
