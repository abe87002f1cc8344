"""Sampling rates by group: each unit at its own rate, priced at the largest, all stated."""

import numpy as np
import pytest
from scipy import stats

from jaxfair.errors import InputError
from jaxfair.privacy import accounting, sampling
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from jaxfair.privacy.secret import insecure_secret
from tests.privacy.toy import earlier_of, plan_of

SECRET, STEPS = insecure_secret(8), 4000
CODES = np.repeat([0, -1, 1, 0], 8)  # groups lie mixed in the population
PLAN = plan_of(2.0, prob=0.3, group_probs=(0.15, 0.5))
RATES = np.array([{0: 0.15, 1: 0.5, -1: 0.3}[code] for code in CODES])


@pytest.fixture(scope="module")
def inclusion():
    """(STEPS, units) bool: who was in which draw."""
    table = np.zeros((STEPS, len(CODES)), bool)
    for step in range(STEPS):
        table[step, PLAN.draw(SECRET, step, CODES)] = True
    return table


def test_every_unit_is_drawn_at_the_rate_of_its_group(inclusion):
    p_values = [
        stats.binomtest(int(count), STEPS, rate).pvalue
        for count, rate in zip(inclusion.sum(axis=0), RATES, strict=True)
    ]
    assert min(p_values) > 0.001 / len(CODES)


def test_pairs_are_drawn_independently_within_and_across_groups(inclusion):
    both = RATES[:, None] * RATES
    z = (inclusion.T.astype(int) @ inclusion - STEPS * both) / np.sqrt(STEPS * both * (1 - both))
    pairs = z[np.triu_indices(len(CODES), 1)]
    assert np.abs(pairs).max() < 5
    assert stats.kstest(pairs, "norm").pvalue > 1e-4


def test_the_sizes_of_two_groups_and_of_two_steps_do_not_go_together(inclusion):
    sizes = np.stack([inclusion[:, code == CODES].sum(axis=1) for code in (-1, 0, 1)])
    across = np.corrcoef(sizes)[np.triu_indices(3, 1)]
    steps = [np.corrcoef(size[1:], size[:-1])[0, 1] for size in sizes]
    assert np.abs([*across, *steps]).max() < 5 / STEPS**0.5


def test_one_rate_for_all_groups_has_the_law_of_one_rate():
    plan = plan_of(2.0, prob=0.3, group_probs=(0.3, 0.3))
    sizes = [len(plan.draw(SECRET, step, CODES)) for step in range(STEPS)]
    observed = np.bincount(sizes, minlength=len(CODES) + 1)
    expected = STEPS * stats.binom.pmf(np.arange(len(CODES) + 1), len(CODES), 0.3)
    common = expected > 5
    merged = [np.append(x[common], x[~common].sum()) for x in (observed, expected)]
    merged[1] *= merged[0].sum() / merged[1].sum()
    assert stats.chisquare(*merged).pvalue > 1e-4


def test_without_rates_by_group_the_draw_is_the_poisson_draw_in_the_same_numbers():
    plan, nobody = plan_of(2.0, prob=0.2), np.full(500, -1)
    for step in range(20):
        wanted = sampling.poisson_draw(SECRET, step, num_units=500, sampling_prob=0.2)
        drawn = plan.draw(SECRET, step, nobody)
        np.testing.assert_array_equal(drawn, wanted)
        assert drawn.dtype == np.int64


def test_a_draw_by_group_is_sorted_and_repeats_and_differs_between_steps_and_secrets():
    draws = [PLAN.draw(SECRET, step, CODES) for step in (3, 3, 4)]
    assert (np.diff(draws[0]) > 0).all() and draws[0].dtype == np.int64
    np.testing.assert_array_equal(draws[0], draws[1])
    assert draws[0].tolist() != draws[2].tolist()
    assert draws[0].tolist() != PLAN.draw(insecure_secret(9), 3, CODES).tolist()


def test_nobody_of_another_group_moves_the_draw_of_a_group():
    wider = np.append(CODES, [-1, -1, 1])
    for step in range(30):
        drawn, others = PLAN.draw(SECRET, step, CODES), PLAN.draw(SECRET, step, wider)
        own = lambda units: units[(units < len(CODES))]
        zero = lambda units: units[CODES[units] == 0]
        np.testing.assert_array_equal(zero(drawn), zero(own(others)))


@pytest.mark.parametrize("codes", [[], [-1], [1, 1]])
def test_groups_without_anybody_are_drawn_empty(codes):
    drawn = PLAN.draw(SECRET, 0, np.array(codes, np.int32))
    assert set(drawn) <= set(range(len(codes)))


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        (np.array([0, 2]), r"group code 2.*-1 to 1.*group_probs"),
        (np.array([-2, 0]), r"group code -2"),
        (np.array([0.0, 1.0]), r"float64; a draw needs one integer per unit"),
        (np.zeros((2, 2), int), r"shape \(2, 2\)"),
    ],
)
def test_a_code_that_the_plan_has_no_rate_for_is_refused(codes, sentence):
    with pytest.raises(InputError, match=sentence):
        PLAN.draw(SECRET, 0, codes)


def test_a_plan_of_one_rate_refuses_codes():
    with pytest.raises(InputError, match="no rates by group"):
        plan_of(1.0).draw(SECRET, 0, np.array([-1, 0]))


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_a_rate_outside_zero_and_one_is_refused(rate):
    with pytest.raises(InputError, match="group_probs gives group 1 the rate"):
        plan_of(1.0, group_probs=(0.1, rate))


@pytest.fixture(scope="module")
def sized():
    return make_plan(
        PrivacyConfig(epsilon=2.0), steps=20, expected_batch_size=10, public_size=100,
        group_probs=(0.05, 0.25),
    )  # fmt: skip


def test_the_largest_rate_is_priced_and_the_divisor_stays(sized):
    assert sized.event(20).sampling_prob == 0.25
    assert 1.98 < sized.epsilon <= 2.0
    assert (sized.sampling_prob, sized.expected_batch_size) == (0.1, 10)


def test_a_group_that_is_drawn_less_than_the_unknown_is_priced_at_the_unknown():
    assert plan_of(1.0, prob=0.3, group_probs=(0.1, 0.2)).event(1).sampling_prob == 0.3


def test_the_statement_gives_each_group_its_own_epsilon_and_claims_the_largest(sized, tmp_path):
    ledger = sized.open_ledger(tmp_path / "ledger.jsonl")
    sized.charge(ledger, stage="t", population="p", draws="d", first_step=0, steps=20)
    statement = sized.statement(ledger, 20)
    rows = {row["group"]: row for row in statement["group_sampling"]}
    assert {code: row["sampling_prob"] for code, row in rows.items()} == {-1: 0.1, 0: 0.05, 1: 0.25}
    for row in rows.values():
        event = Event(row["sampling_prob"], sized.noise_multiplier, 20)
        assert row["epsilon"] == accounting.epsilon([event], sized.delta)
    assert rows[0]["epsilon"] < rows[-1]["epsilon"] < rows[1]["epsilon"] == statement["epsilon"]
    assert statement["events"][0]["sampling_prob"] == 0.25
    assert statement["sampling_prob"] == 0.1


def test_earlier_stages_count_for_every_group(tmp_path):
    first = plan_of(4.0, prob=0.2)
    ledger = first.open_ledger(tmp_path / "first.jsonl")
    first.charge(ledger, stage="a", population="p", draws="d", first_step=0, steps=5)
    second = plan_of(4.0, prob=0.1, group_probs=(0.05,), earlier=earlier_of(ledger.entries))
    later = second.open_ledger(tmp_path / "second.jsonl")
    second.charge(later, stage="b", population="p", draws="e", first_step=0, steps=5)
    (unknown, group) = second.statement(later, 5)["group_sampling"]
    wanted = accounting.epsilon([Event(0.2, 4.0, 5), Event(0.05, 4.0, 5)], 1e-5)
    assert group["epsilon"] == wanted < unknown["epsilon"] == later.epsilon()
