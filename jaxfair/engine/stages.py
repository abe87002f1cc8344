"""The stages of a training: where each begins, and how far a run folder has come.

Every stage has checkpoints of its own, so that what a later one froze is found again: it is a
function of the last checkpoint of the stage before.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxfair.engine.assembly import Assembly, Spec, are_shapes, join
from jaxfair.engine.mesh import put_replicated
from jaxfair.engine.optim import averaged_params
from jaxfair.engine.step import TrainState
from jaxfair.errors import InputError
from jaxfair.methods.base import Method, PyTree, Stage
from jaxfair.privacy.ledger import Ledger
from jaxfair.run import checkpoint
from jaxfair.run.checkpoint import Checkpoint
from jaxfair.run.folder import RunFolder

__all__ = ["ends_of", "enter", "kept", "restore", "shapes_of_stages", "stages_of"]


def ends_of(method: Method, steps: int) -> list[int]:
    """Returns the step at which each stage of a training of `steps` steps is over.

    >>> from jaxfair.methods.base import Stage
    >>> method = Method("a", (), None, None, None)
    >>> later = Stage(method, None, share=0.25)
    >>> ends_of(method._replace(stages=(later, later)), 100)
    [50, 75, 100]

    Raises InputError where shares leave a stage without a step.
    """
    shares = [stage.share for stage in method.stages]
    shares = [1 - sum(shares), *shares]
    ends = [round(steps * sum(shares[: i + 1])) for i in range(len(shares))]
    if any(end <= begin for begin, end in zip([0, *ends], ends)):
        told = ", ".join(f"{stage.method.name!r} {stage.share:.3g}" for stage in method.stages)
        raise InputError(
            f"Of {steps} steps the stages after the first of {method.name!r} have the shares "
            f"{told}, which leaves one without a step; give shares in (0, 1) that add up to less "
            "than 1, or more steps."
        )
    return ends


def stages_of(assembly: Assembly, make: Callable[..., Assembly] = join) -> list[Assembly]:
    """Returns an assembly for each stage, each with the variables it would begin with now.

    They are made from the first variables of the run, so that shapes and checks are known
    before anything is trained; `enter` gives a stage those that it really begins with. From an
    assembly of shapes come assemblies of shapes, and nothing is computed.

    Args:
      make: `join`, or `assemble` to check each stage.
    """
    ends_of(assembly.method, assembly.plan.steps)  # refuses shares that leave no steps
    found, computed = [assembly], not are_shapes(assembly.params)
    for stage in assembly.method.stages:
        before = found[-1]
        begin = functools.partial(_begun, stage, len(found), assembly.spec)
        variables = (
            begin(before.params, before.frozen)
            if computed
            else jax.eval_shape(begin, before.params, before.frozen)
        )
        found.append(
            make(
                assembly.plan,
                stage.method,
                assembly.optimizer if stage.optimizer is None else stage.optimizer,
                spec=assembly.spec,
                variables=variables,
                microbatch=assembly.microbatch,
                mesh=assembly.mesh,
            )
        )
    return found


def shapes_of_stages(
    method: Method, variables: tuple[PyTree, PyTree], spec: Spec
) -> list[tuple[PyTree, PyTree]]:
    """Returns shapes of (params, frozen) of each stage; nothing is computed.

    Args:
      variables: those of the first stage, or their shapes.
    """
    struct = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype)
    found = [jax.tree.map(struct, variables)]
    for number, stage in enumerate(method.stages, start=1):
        begin = functools.partial(_begun, stage, number, spec)
        found.append(jax.eval_shape(begin, *found[-1]))
    return found


def enter(stages: Sequence[Assembly], number: int, before: Assembly, state: TrainState) -> Assembly:
    """Returns stage `number`, with the variables made of those that the stage before ended with.

    Guarantee: an average that it begins with is a function of parameters that were released.
    """
    stage, here, params = stages[0].method.stages[number - 1], stages[number], state.params
    if stage.averaged:
        params = averaged_params(params, state.opt_state)
    return here.with_variables(*_begun(stage, number, here.spec, params, before.frozen))


def restore(
    stages: Sequence[Assembly], folder: RunFolder, ledger: Ledger
) -> tuple[int, Assembly, TrainState]:
    """Returns how far a run folder has come: the stage's number, the stage and its state.

    A stage that is over hands on to the next. Where nothing is saved, it is the beginning.
    """
    ends = ends_of(stages[0].method, stages[0].plan.steps)
    number, here = 0, stages[0]
    state = _restored(here, folder, 0, ledger) or here.begin()
    while int(state.step) >= ends[number] and number + 1 < len(stages):
        number += 1
        here = enter(stages, number, here, state)
        begun = here.begin()._replace(step=state.step)
        state = _restored(here, folder, number, ledger) or begun
    return number, here, state


def _begun(
    stage: Stage, number: int, spec: Spec, params: PyTree, frozen: PyTree
) -> tuple[PyTree, PyTree]:
    return stage.begin(params, frozen, jax.random.key(number), dict(spec))


def kept(state: TrainState) -> Checkpoint:
    """Returns what is saved of a state: all but the sums of a draw under way."""
    return Checkpoint(state.params, state.opt_state, int(state.step), state.rule_state)


def _restored(
    assembly: Assembly, folder: RunFolder, number: int, ledger: Ledger
) -> TrainState | None:
    state = assembly.begin()
    found = checkpoint.restore(folder.checkpoints_of(number), kept(state), ledger)
    if found is None:
        return None
    step = put_replicated(assembly.mesh, jnp.asarray(found.step, state.step.dtype))
    return state._replace(
        params=found.params, opt_state=found.opt_state, step=step, rule_state=found.rule_state
    )
