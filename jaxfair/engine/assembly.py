"""A Method and a plan, joined: checked, with the one compiled step and everything it needs.

Whoever trains, measures or attacks a training does it by an Assembly; nobody else calls the step.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxfair.data.loader import Fields, prefetch
from jaxfair.engine.chunk import (
    Chunk,
    Randomness,
    abstract_chunk,
    abstract_randomness,
    gather,
    zeros,
)
from jaxfair.engine.feed import Feed
from jaxfair.engine.mesh import make_mesh, put_replicated, put_sharded
from jaxfair.engine.minimum import check_linear, minimum_delivery
from jaxfair.engine.population import Population
from jaxfair.engine.scan import Delivery, make_delivery
from jaxfair.engine.step import Step, TrainState, make_step, refuse_coupling
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree, carrying
from jaxfair.privacy import isolation
from jaxfair.privacy.cliprules.apply import check_rule, first_state, informed
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import Secret

__all__ = ["Assembly", "Spec", "are_shapes", "assemble", "join"]

Spec = Mapping[str, jax.ShapeDtypeStruct]
Released = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Assembly:
    """One training without its data: what is learned, how it is kept private, on which devices.

    Attributes:
      method, plan, optimizer, mesh: as they were given.
      params, frozen: what training begins with, on all devices; or shapes, to train nothing.
      spec: shape and dtype of each array of a raw example.
      microbatch: examples per device whose gradients are held at once.
      step: the compiled step.
      steps: those that were made for other microbatches, which a search compiled already.
    """

    method: Method
    plan: PrivacyPlan
    optimizer: optax.GradientTransformation
    mesh: Mesh
    params: PyTree
    frozen: PyTree
    spec: Spec
    microbatch: int
    step: Step
    steps: dict[int, Step] = dataclasses.field(default_factory=dict)

    @property
    def chunk_size(self) -> int:
        """Rows of a chunk, over all devices."""
        return self.microbatch * self.mesh.size

    @property
    def num_leaves(self) -> int:
        """How many leaves the parameters have."""
        return len(jax.tree.leaves(self.params))

    @property
    def num_queries(self) -> int:
        """How many side queries the plan's clip rule asks each draw."""
        return len(self.plan.rule.queries) if self.plan.rule else 0

    @property
    def example(self) -> Spec:
        """Shape and dtype of each array of an example as the loss gets it."""
        if self.method.prepare is None:
            return self.spec
        return jax.eval_shape(self.method.prepare, self.frozen, dict(self.spec))

    def with_parts(self, **changes: Any) -> "Assembly":
        """Returns the training with other parts, and a step of its own that is made of them."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | changes
        del fields["step"], fields["steps"]
        variables = (fields.pop("params"), fields.pop("frozen"))
        return join(**fields, variables=variables)

    def with_variables(self, params: PyTree, frozen: PyTree) -> "Assembly":
        """Returns the training with the same step and other variables to begin with."""
        params, frozen = put_replicated(self.mesh, (params, frozen))
        return dataclasses.replace(self, params=params, frozen=frozen)

    def with_microbatch(self, microbatch: int) -> "Assembly":
        """Returns the same training with this microbatch; each has one step, compiled once."""
        self.steps[self.microbatch] = self.step
        if microbatch not in self.steps:
            self.steps[microbatch] = self.with_parts(microbatch=microbatch).step
        step = self.steps[microbatch]
        return dataclasses.replace(self, microbatch=microbatch, step=step)

    def begin(self) -> TrainState:
        """Returns the state before the first step; training takes it over (donation)."""
        fresh = jax.tree.map(jnp.copy, self.params)
        return put_replicated(self.mesh, self.step.init(fresh))

    def feed(self, secret: Secret, population: Population, fields: Fields) -> Feed:
        """Returns what the steps of this training are given.

        Args:
          fields: readers of examples as the loss gets them, by row.
        """
        return Feed(
            secret=secret,
            plan=self.plan,
            population=population,
            fields=fields,
            mesh=self.mesh,
            num_leaves=self.num_leaves,
            chunk_size=self.chunk_size,
        )

    def delivery(self, feed: Feed) -> Delivery:
        """Returns how the feed's chunks reach the devices; made once, it is compiled once."""
        at_once = minimum_delivery(self.step, feed, self.frozen, self.method.linear)
        return at_once or make_delivery(self.step, feed, self.frozen)

    def train(
        self, state: TrainState, delivery: Delivery, first: int, count: int
    ) -> Iterator[tuple[TrainState, Released]]:
        """Trains steps `first` to `first + count - 1`; yields as the devices are given work.

        The last (state, released) is that of the last step; an earlier one may lie between
        two steps. A state that was yielded is gone when the next one comes (donation).
        """
        for arguments in prefetch(delivery.arguments(first, count)):
            state, released = delivery.update(state, delivery.frozen, *arguments)
            yield state, released

    def chunk(self, fields: Fields, rows: Sequence[int]) -> Chunk:
        """Returns one chunk of these store rows on the devices, -1 and what is left as padding.

        Raises InputError for more rows than a chunk has.
        """
        if len(rows) > self.chunk_size:
            raise InputError(f"{len(rows)} rows do not fit into a chunk of {self.chunk_size}.")
        padded = np.full(self.chunk_size, -1, np.int64)
        padded[: len(rows)] = rows
        return put_sharded(self.mesh, gather(fields, padded, padded.astype(np.uint32)))

    def update(
        self, state: TrainState, chunk: Chunk, randomness: Randomness, *, is_last: bool = True
    ) -> tuple[TrainState, Released]:
        """Calls the step once, with a chunk that was made by hand; takes `state` over."""
        return self.step.update(state, self.frozen, chunk, randomness, is_last)

    def made_up_update(self) -> Callable[[], None]:
        """Returns a function that runs one update on zeros and waits for it."""
        chunk = zeros(abstract_chunk(self.example, self.chunk_size))
        chunk = jax.device_put(chunk, jax.NamedSharding(self.mesh, jax.P(*self.mesh.axis_names)))
        keys, held = zeros(abstract_randomness(self.num_leaves, self.num_queries)), [self.begin()]

        def call() -> None:
            held[0], _ = self.update(held[0], chunk, keys)
            jax.block_until_ready(held[0].step)

        return call

    def shapes(self) -> tuple[Any, ...]:
        """Returns shapes of what the step's update is called with."""
        chunk = abstract_chunk(self.example, self.chunk_size)
        keys = abstract_randomness(self.num_leaves, self.num_queries)
        return jax.eval_shape(self.step.init, self.params), self.frozen, chunk, keys, True

    def compiled(self) -> Any:
        """Returns the compiled step, from shapes alone; nothing is run."""
        return self.step.update.lower(*self.shapes()).compile()


def assemble(
    plan: PrivacyPlan,
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    spec: Spec,
    variables: tuple[PyTree, PyTree],
    microbatch: int,
    mesh: Mesh | None = None,
) -> Assembly:
    """Joins a Method and a plan; touches no data.

    Args:
      spec: shape and dtype of each array of a raw example.
      variables: (params, frozen) that training begins with, or their shapes.
      microbatch: examples per device whose gradients are held at once.
      mesh: the devices; None for all.

    Raises InputError for a private plan where one example reaches another's loss (said by the
    Method, read from the equations of its loss and of `prepare`, or found by a probe with
    made-up examples), and for a loss that is not one number.
    """
    method = carrying(method, spec)
    refuse_coupling(method, plan)
    _check_params(method.name, variables[0])
    check_linear(method, plan, variables[0])
    told = (variables[0], informed(plan, variables[1], first_state(plan)))
    if plan.private:
        isolation.check(method.name, method.loss, method.prepare, *told, spec)
    _check_loss(method, *told, spec)
    _check_schedule(method, variables[1])
    made = join(
        plan, method, optimizer, spec=spec, variables=variables, microbatch=microbatch, mesh=mesh
    )
    check_rule(plan, made.example)
    return made


def join(
    plan: PrivacyPlan,
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    spec: Spec,
    variables: tuple[PyTree, PyTree],
    microbatch: int,
    mesh: Mesh | None = None,
) -> Assembly:
    """`assemble` without its checks, for those who look for what the checks would miss."""
    mesh, method = mesh or make_mesh(), carrying(method, spec)
    if not are_shapes(variables):
        variables = put_replicated(mesh, variables)
    return Assembly(
        method=method,
        plan=plan,
        optimizer=optimizer,
        mesh=mesh,
        params=variables[0],
        frozen=variables[1],
        spec=spec,
        microbatch=microbatch,
        step=make_step(method, plan, optimizer, mesh, microbatch=microbatch),
    )


def are_shapes(tree: PyTree) -> bool:
    """Whether a tree holds shapes for values (`jax.ShapeDtypeStruct`), of which nothing is run."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree))


def _check_params(name: str, params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        if not (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)):
            raise InputError(
                f"The parameters of {name!r} hold a {kind} at {jax.tree_util.keystr(path)}; they "
                "must be arrays of floating-point numbers (close over the rest, as "
                "equinox.partition or nnx.split part it off)."
            )


def _check_loss(method: Method, params: PyTree, frozen: PyTree, spec: Spec) -> None:
    """Refuses a loss that is not one floating-point number."""
    example = dict(spec)
    try:
        if method.prepare is not None:
            example = jax.eval_shape(method.prepare, frozen, example)
        value = jax.eval_shape(method.loss, params, frozen, example, jax.random.key(0))[0]
    except NameError:  # an axis of the mesh, which a plain run may use
        return
    if not hasattr(value, "shape"):
        raise InputError(
            f"The loss of {method.name!r} gives {type(value).__name__} for one example; it must "
            "give one floating-point number alone."
        )
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise InputError(
            f"The loss of {method.name!r} gives {value.dtype}{list(value.shape)} for one "
            "example; it must give one floating-point number (sum or average what it has)."
        )


def _check_schedule(method: Method, frozen: PyTree) -> None:
    """Refuses a schedule that gives other arrays than there were."""
    if method.schedule is None:
        return
    after = jax.eval_shape(method.schedule, frozen, jax.ShapeDtypeStruct((), jnp.float32))
    kinds = [jax.tree.map(lambda a: (a.shape, str(a.dtype)), t) for t in (frozen, after)]
    if kinds[0] != kinds[1]:
        raise InputError(
            f"The schedule of {method.name!r} gives arrays of other shapes or dtypes than what is "
            "frozen; change their values alone."
        )
