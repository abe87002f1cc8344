"""Two-stage fine-tuning in one composition: the thesis paid 8 = 6 + 2 for what costs less.

Its schedules: 15,000 and 5,000 steps (age 4,998), batch 512, with the noise that Opacus gave for
epsilon 6 and 2 at delta 1 / N of each stage.
"""

import pytest

from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import Entry
from jaxfair.privacy.plan import PrivacyConfig, make_plan
from tests.privacy.toy import earlier_of

AGE = (Event(1 / 3, 27.31, 15_000), Event(1 / 3, 39.24, 4_998)), (1534, 1535)
SEX = (Event(1 / 8, 10.79, 15_000), Event(1 / 8, 15.77, 5_000)), (3854, 3855)


@pytest.mark.parametrize(
    ("schedule", "rdp", "pld"), [(AGE, 6.26, 6.96), (SEX, 6.28, 6.87)], ids=["age", "sex"]
)
def test_the_schedule_of_the_thesis_costs_less_than_the_eight_that_it_paid(schedule, rdp, pld):
    """By RDP at the thesis's own delta, and by PLD at a tenth of 1 / N (protocol P3)."""
    stages, (first, second) = schedule
    apart = [accounting.epsilon_rdp([e], 1 / n) for e, n in zip(stages, schedule[1])]
    assert apart == pytest.approx([6.0, 2.0], abs=0.08)  # as it was paid, one by one
    together = accounting.epsilon_rdp(stages, 1 / first + 1 / second)
    assert together == pytest.approx(rdp, abs=0.006)
    assert accounting.epsilon(stages, 0.1 / first) == pytest.approx(pld, abs=0.006)
    assert accounting.epsilon(stages, 1 / first) < together < sum(apart)


def test_the_second_stage_gets_what_the_first_left_of_one_budget():
    """At the same budget of 8 less noise is needed than where 6 and 2 are paid by themselves."""
    sizes = {"expected_batch_size": 512, "public_size": 4_000}
    first = make_plan(PrivacyConfig(epsilon=6.0), steps=1_500, **sizes)
    entry = {"stage": "train", "population": "p", "draws": "first", "first_step": 0}
    paid = Entry(**entry, steps=1_500, sampling_prob=512 / 4_000,
                 noise_multiplier=first.noise_multiplier)  # fmt: skip
    second = make_plan(PrivacyConfig(epsilon=8.0), steps=500, earlier=earlier_of([paid]), **sizes)
    alone = make_plan(PrivacyConfig(epsilon=2.0), steps=500, **sizes)
    assert second.epsilon == pytest.approx(8.0, abs=0.01) and second.epsilon <= 8.0
    assert second.noise_multiplier < 0.6 * alone.noise_multiplier
