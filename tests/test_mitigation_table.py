"""Every mitigation with every kind of method: it makes a training, or one sentence says why not."""

from unittest import mock

import jax
import pytest

from jaxfair.config import (
    method_from_settings,
    parse_command,
    plan_from_settings,
    settings_from_config,
)
from jaxfair.engine.stages import ends_of, shapes_of_stages
from jaxfair.errors import InputError
from jaxfair.methods.base import carrying
from jaxfair.methods.mitigations.catalog import MITIGATIONS
from jaxfair.privacy import accounting
from jaxfair.privacy.cliprules.apply import check_rule, first_state, informed
from jaxfair.start import optimizer_of
from tests.test_mitigation_door import LINES

METHODS = {
    "fae": ("rsna_fae:phantom", "--config.method.hidden_dims=(8,8)"),
    "classifier": ("chexpert_resnet:phantom",),
    "linear_probe": ("derm_probe:phantom",),
    "gaussian": ("rsna_detectors:phantom",),
    "adversarial": ("chexpert_adversarial:phantom",),
    "fairread": ("chexpert_fairread:phantom",),
}


def trained(mitigation, method, *, private):
    """Shapes of (method, loss, scores) of every stage that such a config would train."""
    config, *line = METHODS[method]
    said = [word for word in LINES[mitigation] if "dp.enabled" not in word]
    argv = ["train", "--config", config, f"--config.mitigation.name={mitigation}", *line, *said]
    settings = settings_from_config(parse_command([*argv, f"--config.dp.enabled={private}"])[0])
    with mock.patch.object(accounting, "noise_multiplier_from_epsilon", lambda *given: 8.0):
        plan = plan_from_settings(settings)
    whole, spec = method_from_settings(settings), settings.data.spec
    first = jax.eval_shape(lambda: whole.init(jax.random.key(0), spec))
    ends_of(whole, plan.steps)
    optimizer_of(settings, whole, first)
    for stage, (params, frozen) in zip(
        (whole, *(stage.method for stage in whole.stages)), shapes_of_stages(whole, first, spec)
    ):
        yield plan, carrying(stage, spec), params, frozen, spec


def check(plan, method, params, frozen, spec):
    """Raises where the loss of one example is no number, or the rule does not fit."""
    example = dict(spec)
    if method.prepare is not None:
        example = jax.eval_shape(method.prepare, frozen, example)
    if plan.private:
        assert not method.couples_examples and method.batch_loss is None
    told = informed(plan, frozen, first_state(plan))
    value, _ = jax.eval_shape(method.loss, params, told, example, jax.random.key(0))
    assert value.shape == ()
    check_rule(plan, example)


@pytest.mark.slow
@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mitigation", MITIGATIONS)
def test_a_mitigation_makes_a_training_or_is_refused_in_one_sentence(mitigation, method, private):
    try:
        for stage in trained(mitigation, method, private=private):
            check(*stage)
    except InputError as refusal:
        said = str(refusal)
        assert "\n" not in said and said.endswith((".", "?"))
