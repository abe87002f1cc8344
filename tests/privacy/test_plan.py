"""The plan: everything in it is public, and what cannot be promised is refused in one sentence."""

import dataclasses
import math

import pytest

from jaxfair.errors import InputError
from jaxfair.privacy import accounting
from jaxfair.privacy.plan import PrivacyConfig, PrivacyPlan, delta_from_public_size, make_plan
from jaxfair.privacy.sums.formats import FORMATS
from jaxfair.schema import PRECISIONS
from tests.privacy.toy import plan_of

CHEAP = {"steps": 5, "expected_batch_size": 10, "public_size": 100}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"epsilon": 0.0}, r"dp\.epsilon is 0\.0; it must be in \(0, 100\]"),
        ({"epsilon": math.nan}, r"dp\.epsilon is nan"),
        ({"epsilon": math.inf}, r"dp\.epsilon is inf"),
        ({"l2_clip_norm": 0.0}, r"dp\.l2_clip_norm is 0\.0; it must be positive"),
        ({"l2_clip_norm": math.inf}, r"dp\.l2_clip_norm is inf"),
        ({"l2_clip_norm": math.nan}, r"dp\.l2_clip_norm is nan"),
        ({"delta": 1.0}, r"dp\.delta is 1\.0"),
        ({"unit": "hospital"}, r"dp\.unit is 'hospital'; it must be one of patient, image"),
        ({"clipping": "ghost"}, r"dp\.clipping is 'ghost'"),
        ({"microbatch": -1}, r"dp\.microbatch is -1"),
    ],
)
def test_a_config_outside_its_ranges_is_refused_with_value_and_rule(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        PrivacyConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"public_size": None}, r"data\.public_size is None: declare the size"),
        ({"public_size": 0}, r"data\.public_size is 0"),
        ({"expected_batch_size": 101}, r"expected_batch_size is 101 but data\.public_size is 100"),
        ({"expected_batch_size": 0}, r"expected_batch_size is 0"),
    ],
)
def test_a_batch_that_does_not_fit_the_public_size_is_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        make_plan(PrivacyConfig(), **(CHEAP | fields))


def test_a_plan_keeps_its_budget_and_prices_what_it_will_do():
    plan = make_plan(PrivacyConfig(epsilon=1.0), **CHEAP)
    assert 0.99 <= plan.epsilon <= plan.budget == 1.0
    assert plan.epsilon <= plan.epsilon_rdp
    assert plan.epsilon == accounting.epsilon([plan.event(plan.steps)], plan.delta)
    assert plan.sampling_prob == 0.1


def test_the_noise_is_the_multiplier_times_the_sensitivity():
    plan = plan_of(3.0, clip=0.25)
    assert plan.sensitivity() == 0.25
    assert plan.noise_stddev() == 0.75


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_margin_of_the_precision_stands_in_plan_and_statement(precision, tmp_path):
    plan = make_plan(PrivacyConfig(precision=precision), **CHEAP)
    form = FORMATS[precision]
    assert plan.clip_margin >= form.margin + 80 * form.unit * plan.max_draw
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    plan.charge(ledger, stage="train", population="made up", draws="a", first_step=0, steps=1)
    told = plan.statement(ledger, 1)
    assert (told["precision"], told["clip_margin"]) == (precision, plan.clip_margin)
    plain = make_plan(PrivacyConfig(enabled=False, precision=precision), **CHEAP)
    said = plain.statement(plain.open_ledger(tmp_path / "none.jsonl"), 1)
    assert (said["precision"], said["clip_margin"]) == (None, None)


def test_delta_follows_from_the_public_size():
    deltas = [delta_from_public_size(n) for n in (100, 10_000, 1_000_000)]
    assert deltas == pytest.approx([1e-5, 1e-5, 1e-7])
    assert make_plan(PrivacyConfig(enabled=False), **CHEAP).delta == 1e-5


def test_a_plan_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan_of(1.0).noise_multiplier = 0.1


def test_a_run_without_privacy_claims_nothing(tmp_path):
    plan = make_plan(PrivacyConfig(enabled=False), **CHEAP)
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    about = {"stage": "s", "population": "p", "draws": "d", "first_step": 0, "steps": 5}
    assert plan.charge(ledger, **about) is None
    assert not (tmp_path / "ledger.jsonl").exists()
    statement = plan.statement(ledger, 5)
    claims = ("epsilon", "epsilon_rdp", "delta", "noise_multiplier", "l2_clip_norm", "budget")
    assert all(statement[name] is None for name in claims)


def test_the_statement_says_what_the_ledger_paid_and_not_what_was_planned(tmp_path):
    plan = plan_of(4.0, prob=0.1)
    ledger = plan.open_ledger(tmp_path / "ledger.jsonl")
    about = {"stage": "s", "population": "p", "draws": "d", "first_step": 0, "steps": 7}
    plan.charge(ledger, **about)
    statement = plan.statement(ledger, 5)
    paid = accounting.epsilon([plan.event(7)], plan.delta)
    assert statement["epsilon"] == pytest.approx(paid)
    assert statement["steps"] == 5 and statement["ledger_head"] == ledger.head


def test_every_field_of_a_plan_is_a_public_scalar():
    fields = {f.name: f.type for f in dataclasses.fields(PrivacyPlan)}
    assert not [n for n, t in fields.items() if "rray" in str(t) or "Dataset" in str(t)]


def test_a_begun_run_without_its_secret_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be replayed; --recharge"):
        plan_of(1.0).open_secret(tmp_path, seed=0, insecure_seed=None, may_create=False)


def test_a_private_run_is_never_keyed_by_its_public_seed(tmp_path):
    made = plan_of(1.0).open_secret(tmp_path / "s", seed=7, insecure_seed=None, may_create=True)
    plain = make_plan(PrivacyConfig(enabled=False), **CHEAP)
    seeded = plain.open_secret(tmp_path / "t", seed=7, insecure_seed=None, may_create=True)
    assert made.source == "os" and seeded.source == "insecure_seed"
    assert made.material != seeded.material
