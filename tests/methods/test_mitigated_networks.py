"""The networks of this package under mitigations: what fits which, and how it is clipped fast."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxfair import engine
from jaxfair.engine.assembly import assemble
from jaxfair.engine.stages import stages_of
from jaxfair.errors import InputError
from jaxfair.methods.base import carrying
from jaxfair.methods.catalog import METHODS, make_method
from jaxfair.methods.mitigations.catalog import clip_rule, mitigated
from jaxfair.privacy.sums import fast
from tests.methods.mitigated import CASES, FITS
from tests.methods.test_every_method import CASES as METHOD_CASES
from tests.methods.test_every_method import labelled_spec
from tests.methods.test_ways import ENDS
from tests.privacy.toy import plan_of

struct = jax.ShapeDtypeStruct
GROUP = {"group": struct((2,), jnp.int32)}


def last_stage(name, method, spec):
    """Returns (Method, shapes of its parameters, zeros as its frozen part) of the last stage."""
    method = mitigated(name, CASES[name], method)
    params, frozen = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))
    for stage in method.stages:
        params, frozen = stage.begin(params, frozen, jax.random.key(1), spec)
        method = stage.method
    frozen = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), frozen)
    rule = clip_rule(name, CASES[name])
    if rule is not None and rule.method_inputs is not None:
        frozen |= rule.method_inputs(rule.init())
    return carrying(method, spec), params, frozen


def assembled(name, case):
    """Every stage of a Method under a mitigation, from shapes alone, after all private checks."""
    kind, config, spec = METHOD_CASES[case]
    spec = spec | GROUP
    method = mitigated(name, CASES[name], make_method(kind, config))
    variables = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))
    first = assemble(
        plan_of(), method, optax.sgd(0.1), spec=spec, variables=variables, microbatch=2,
        mesh=engine.make_mesh(1),
    )  # fmt: skip
    return stages_of(first, assemble)


@pytest.mark.parametrize("name", FITS)
def test_every_kernel_of_a_mitigated_classifier_is_recognised(name):
    plain = make_method("classifier", METHODS["classifier"].config(labels=("a", "b"), channels=1))
    spec = labelled_spec(2, 32, 32, 1) | GROUP
    method, params, frozen = last_stage(name, plain, spec)
    loss = lambda p, example, key: method.loss(p, frozen, example, key)[0]
    rows = fast.explain(loss, params, spec, jax.random.key(0))
    assert rows and not [p for p, way, _ in rows if way == "vmap" and not p.endswith(ENDS)]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("group_norms", "fae"), ("jtt", "linear_probe"), ("balanced_head", "classifier-head"),
        pytest.param("group_norms", "classifier", marks=pytest.mark.slow),
        pytest.param("jtt", "classifier", marks=pytest.mark.slow),
        pytest.param("balanced_head", "linear_probe", marks=pytest.mark.slow),
        pytest.param("group_weights", "fae", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_a_method_has_the_parts_for_trains_privately_and_scores(name, case):
    for stage in assembled(name, case):
        batch = {n: struct((2, *leaf.shape), leaf.dtype) for n, leaf in stage.spec.items()}
        scores = jax.eval_shape(scored(stage.method), stage.params, stage.frozen, batch)
        assert all(scores[task].shape == (2,) for task in stage.method.tasks)


def scored(method):
    def score(params, frozen, batch):
        if method.prepare is not None:
            batch = batch | jax.vmap(method.prepare, (None, 0))(frozen, batch)
        return method.score(params, frozen, batch)

    return score


@pytest.mark.parametrize(
    ("name", "case", "sentence"),
    [
        ("group_norms", "linear_probe", "'linear_probe' has none here"),
        ("group_norms", "classifier-head", "'classifier' has none here"),
        ("jtt", "fae", "'fae' trains without labels"),
        ("balanced_head", "fae", "trains without labels"),
    ],
)
def test_what_a_method_has_no_parts_for_is_refused_before_anything_is_trained(name, case, sentence):
    with pytest.raises(InputError) as caught:
        assembled(name, case)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
