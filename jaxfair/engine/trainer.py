"""One training, opened in a folder: it pays before it draws, and resumes or refuses.

    trainer = engine.open(plan, loss_fn, optimizer, population, fields, folder, params=params)
    with trainer:
        for released in trainer.steps():
            print(released.step, released.epsilon)

Sampling probability, batch size, noise and steps come from the plan alone. A trainer that is
left without an error writes privacy.json and forgets its secret; one that dies is opened again
by the same call, and replays.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tqdm

from jaxfair import files
from jaxfair.data.loader import Fields
from jaxfair.engine.assembly import Assembly
from jaxfair.engine.books import Books, Options
from jaxfair.engine.features import training_fields
from jaxfair.engine.feed import Feed
from jaxfair.engine.mesh import first_then_others, is_first_host
from jaxfair.engine.population import Population
from jaxfair.engine.stages import ends_of, enter, kept, restore
from jaxfair.errors import InputError
from jaxfair.methods.base import PyTree
from jaxfair.privacy import release
from jaxfair.privacy.descent import units_of, worst
from jaxfair.privacy.ledger import BudgetExceeded
from jaxfair.privacy.seals import digests
from jaxfair.privacy.statement import covered
from jaxfair.run import checkpoint
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import Board, MetricsLog, progress_bar

__all__ = ["Released", "Trainer"]


class Released(NamedTuple):
    """What has left a training, after some step.

    Attributes:
      step: draws completed.
      params: the parameters, a copy of its own.
      epsilon: what has been paid so far; None without privacy.
      metrics: functions of the noisy mean and the parameters, by name.
    """

    step: int
    params: PyTree
    epsilon: float | None
    metrics: dict[str, float]


class Trainer:
    """A training that is open; made by `engine.open`.

    Attributes:
      plan: what it promises.
      folder: where it lies.
      assembly: what is trained now (of several stages, the one under way), and its step.
      state: parameters, optimiser and count of steps, as they lie on the devices.
    """

    def __init__(
        self,
        stages: Sequence[Assembly],
        population: Population,
        fields: Fields,
        folder: RunFolder,
        books: Books,
        options: Options,
    ) -> None:
        """Restores what the folder holds."""
        self.plan, self.folder = stages[0].plan, folder
        self._stages = [stage.with_microbatch(books.microbatch) for stage in stages]
        self._population, self._fields, self._books = population, fields, books
        self._options, self._show = options, options.progress and is_first_host()
        self._stage, self.assembly, self.state = restore(self._stages, folder, books.ledger)
        self._loop, self._closed, self._torn = threading.Lock(), False, False
        self._compiled = False

    @property
    def step(self) -> int:
        """Draws completed."""
        return int(self.state.step)

    def steps(self) -> Iterator[Released]:
        """Pays for `save_every` steps, trains and saves them, and yields; until all are done.

        It ends early where the next steps would overspend the budget. What it yields is all
        that leaves a private run; what was spent when its consumer stops is in the ledger.

        Raises InputError while another such loop is under way, after the training was closed or
        left, and after an interrupt inside a draw.
        """
        with self._only_loop():
            yield from self._all_steps()

    def _all_steps(self) -> Iterator[Released]:
        begun = self.step
        bar = progress_bar(self.plan.steps, initial=begun, what="training", hidden=not self._show)
        with contextlib.closing(self._open_log(begun)) as log, bar, _stops_at_the_budget():
            for number, end in enumerate(ends_of(self._stages[0].method, self.plan.steps)):
                if number > self._stage:
                    self._enter(number)
                if self.step < end:
                    yield from self._train_until(end, log, bar)

    def params(self) -> PyTree:
        """Returns a copy of the parameters; what is trained further gives its memory back."""
        return jax.tree.map(jnp.copy, self.state.params)

    def run(self) -> dict[str, Any]:
        """Trains to the end and closes; returns the statement."""
        with self:
            for _ in self.steps():
                pass
        return files.read_json(self.folder.privacy)

    def statement(self) -> dict[str, Any]:
        """Returns privacy.json as it stands now: what is promised, to whom, and by what."""
        people, private, source = self._population, self.plan.private, self._books.secret.source
        own = people.facts | {
            "noise_source": source if private else None,
            "grade": {"os": "private", "insecure_seed": "research"}[source] if private else "none",
        }
        told = self.plan.statement(self._books.ledger, self.step)
        told |= {"population": people.name, "seed": self._options.seed}
        told |= worst(own, told["earlier"])
        told["covered"] = covered(units_of(own, told["earlier"]))
        return dict(release.allowed("privacy.json", told | digests(self.folder.path)))

    def close(self) -> None:
        """Ends the training: writes privacy.json, which says so, and forgets secret and times.

        A second call does nothing. After an interrupt inside a draw it leaves the folder as it
        is, for a resume.
        """
        if not (self._closed or self._torn) and is_first_host():
            files.write_json(self.folder.privacy, self.statement())
            self.folder.forget_secret()
            self.folder.level_times()
        self._leave()

    def _leave(self) -> None:
        self._closed = True
        self._books.leave()

    def __enter__(self) -> "Trainer":
        self._refuse_unless_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Closes, unless an error or an interrupt is to be followed by a resume."""
        if kind is None:
            first_then_others(self.close)
        else:
            self._leave()

    @contextlib.contextmanager
    def _only_loop(self) -> Iterator[None]:
        """Two loops at once would draw the same steps twice."""
        self._refuse_unless_open()
        if not self._loop.acquire(blocking=False):
            raise InputError(
                "The steps of this training are under way in another loop; go on with that one, "
                "or end it first."
            )
        try:
            yield
        finally:
            self._loop.release()

    def _refuse_unless_open(self) -> None:
        if self._torn and not self._closed:
            raise InputError(
                f"The training in {self.folder.path} was interrupted inside a draw: close it and "
                "open it again by the same call, which goes on from the last checkpoint."
            )
        if self._closed:
            raise InputError(
                f"This training in {self.folder.path} is closed; nothing can be drawn any more. "
                "One that was left by an error is opened again by the same call."
            )

    def _train_until(self, end: int, log: MetricsLog, bar: tqdm.tqdm) -> Iterator[Released]:
        """Trains the stage under way up to step `end`."""
        every, delivery = self._options.save_every, self.assembly.delivery(self._feed())
        while self.step < end:
            self._refuse_unless_open()
            first, count = self.step, min(every, end - self.step)
            epsilon = self._pay(first, count)
            self._torn = True
            bar.set_postfix_str(self.plan.progress(epsilon))
            bar.set_description(release.line("training" if self._compiled else "compiling"))
            for state, metrics in self.assembly.train(self.state, delivery, first, count):
                self.state, newest, self._compiled = state, metrics, True
                bar.set_description(release.line("training"), refresh=False)
                bar.update(self.step - bar.n)
            public = {name: float(value) for name, value in newest.items()}
            log.write(self.step, epsilon=epsilon, **public)
            where = self.folder.checkpoints_of(self._stage)
            checkpoint.save(where, kept(self.state), self._books.ledger)
            self._torn = False
            yield Released(self.step, self.params(), epsilon, public)

    def _enter(self, number: int) -> None:
        self.assembly = enter(self._stages, number, self.assembly, self.state)
        self._stage, step, self._compiled = number, self.state.step, False
        self.state = self.assembly.begin()._replace(step=step)

    def _feed(self) -> Feed:
        """Returns the feed of the stage under way, its features computed."""
        rows, method = self._population.all_rows, self.assembly.method
        fields = training_fields(
            method, self.assembly.frozen, self._fields, rows, progress=self._show
        )
        return self.assembly.feed(self._books.secret, self._population, fields)

    def _pay(self, first: int, count: int) -> float | None:
        """Pays for `count` draws from `first` on; returns epsilon spent, None without privacy."""
        return self.plan.charge(
            self._books.ledger,
            stage=f"train {self._stage + 1}" if self._stage else "train",
            population=self._population.name,
            draws=self._books.secret,
            first_step=first,
            steps=count,
        )

    def _open_log(self, begun: int) -> MetricsLog:
        writes, board = is_first_host(), None
        if writes and self._options.board:
            board = Board(self.folder.board, private=self.plan.private, after_step=begun)
        return MetricsLog(self.folder.metrics, after_step=begun, writes=writes, board=board)


@contextlib.contextmanager
def _stops_at_the_budget() -> Iterator[None]:
    """Ends what is within where the next steps would overspend, and says so."""
    try:
        yield
    except BudgetExceeded as error:
        print(error, file=sys.stderr)
