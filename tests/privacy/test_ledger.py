"""The ledger: nothing is spent before it is written, nothing twice, nothing above the budget."""

import json
import os

import pytest

from jaxfair.privacy import accounting
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.ledger import BudgetExceeded, Entry, Ledger, LedgerError, read_entries

DELTA = 1e-5
Q, SIGMA = 0.2, 4.0


def entry(first=0, steps=5, *, stage="train", draws="tag", q=Q, sigma=SIGMA, population="p"):
    return Entry(stage, population, draws, first, steps, q, sigma)


def opened(folder, budget=100.0):
    return Ledger(folder / "ledger.jsonl", budget=budget, delta=DELTA)


def price(steps, sigma=SIGMA):
    return accounting.epsilon([Event(Q, sigma, steps)], DELTA)


def spans(ledger):
    return [(e.first_step, e.steps) for e in ledger.entries]


def test_a_charge_is_on_disk_before_it_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    ledger = opened(tmp_path)
    assert ledger.charge(entry()) == pytest.approx(price(5))
    size = (tmp_path / "ledger.jsonl").stat().st_size
    assert size in synced and spans(opened(tmp_path)) == [(0, 5)]


def test_charges_add_up_over_restarts(tmp_path):
    opened(tmp_path).charge(entry(0))
    assert opened(tmp_path).charge(entry(5)) == pytest.approx(price(10))


def test_a_replayed_step_is_not_charged_again(tmp_path):
    ledger = opened(tmp_path)
    ledger.charge(entry(0, 5))
    assert ledger.charge(entry(0, 5)) == pytest.approx(price(5))
    assert spans(ledger) == [(0, 5)]


def test_a_charge_that_overlaps_pays_for_the_rest(tmp_path):
    ledger = opened(tmp_path)
    ledger.charge(entry(0, 5))
    assert ledger.charge(entry(3, 5)) == pytest.approx(price(8))
    assert spans(ledger) == [(0, 5), (5, 3)]


def test_steps_before_and_after_a_paid_stretch_are_paid(tmp_path):
    ledger = opened(tmp_path)
    ledger.charge(entry(10, 5))
    assert ledger.charge(entry(0, 20)) == pytest.approx(price(20))
    assert spans(ledger) == [(10, 5), (0, 10), (15, 5)]


def test_another_secret_is_charged_again(tmp_path):
    ledger = opened(tmp_path)
    ledger.charge(entry(0, 5))
    assert ledger.charge(entry(0, 5, draws="other")) == pytest.approx(price(10))


@pytest.mark.parametrize("other", [{"sigma": 8.0}, {"q": 0.1}, {"stage": "tune"}])
def test_a_second_event_on_one_draw_is_refused(tmp_path, other):
    ledger = opened(tmp_path)
    ledger.charge(entry(0, 5))
    with pytest.raises(LedgerError, match="one event"):
        ledger.charge(entry(4, 5, **other))
    assert spans(ledger) == [(0, 5)]


def test_stages_and_populations_compose(tmp_path):
    ledger = opened(tmp_path)
    ledger.charge(entry(0, 5, stage="pretrain", draws="first", sigma=6.0, population="nih"))
    total = ledger.charge(entry(0, 5, stage="train", draws="second", population="rsna"))
    both = accounting.epsilon([Event(Q, 6.0, 5), Event(Q, SIGMA, 5)], DELTA)
    assert total == pytest.approx(both) and total > price(5)


def test_training_stops_at_the_budget_and_nothing_is_written(tmp_path):
    ledger = opened(tmp_path, budget=price(10) + 1e-6)
    ledger.charge(entry(0, 10))
    with pytest.raises(BudgetExceeded, match=r"Step 10 would bring epsilon to .* above the budget"):
        ledger.charge(entry(10, 1))
    assert spans(opened(tmp_path)) == [(0, 10)]


def test_the_budget_holds_after_a_restart_and_under_another_secret(tmp_path):
    budget = price(10) + 1e-6
    opened(tmp_path, budget).charge(entry(0, 10))
    for more in (entry(10, 1), entry(0, 1, draws="other"), entry(10, 1, sigma=9.0)):
        with pytest.raises(BudgetExceeded):
            opened(tmp_path, budget).charge(more)
    assert opened(tmp_path, budget).charge(entry(0, 10)) <= budget


def test_a_budget_that_is_no_number_allows_nothing(tmp_path):
    with pytest.raises(BudgetExceeded):
        opened(tmp_path, budget=float("nan")).charge(entry())


def test_a_reader_leaves_a_line_that_is_being_written_alone(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"draws": ')
    assert read_entries(path)[0] == []
    Ledger(path, budget=1.0, delta=1e-5, writes=False)
    assert path.read_bytes() == b'{"draws": '


def test_a_torn_last_line_is_cut_off_and_paid_again(tmp_path):
    ledger = opened(tmp_path)
    ledger.charge(entry(0, 5))
    whole = ledger.path.read_bytes()
    ledger.charge(entry(5, 5))
    torn = ledger.path.read_bytes()
    for cut in range(len(whole), len(torn) - 1, 37):
        ledger.path.write_bytes(torn[:cut])
        again = opened(tmp_path)
        assert spans(again) == [(0, 5)] and again.path.read_bytes() == whole
        assert again.charge(entry(5, 5)) == pytest.approx(price(10))
        assert again.path.read_bytes() == torn


def test_any_changed_number_breaks_the_chain(tmp_path):
    ledger = opened(tmp_path)
    for first in (0, 5, 10):
        ledger.charge(entry(first))
    lines = ledger.path.read_text().splitlines()
    for number, line in enumerate(lines):
        for name, value in json.loads(line).items():
            changed = value + 1 if isinstance(value, int | float) else value[::-1] + "x"
            edited = json.dumps(json.loads(line) | {name: changed}, sort_keys=True)
            text = "\n".join([*lines[:number], edited, *lines[number + 1 :]]) + "\n"
            ledger.path.write_text(text)
            with pytest.raises(LedgerError):
                read_entries(ledger.path)


@pytest.mark.parametrize("order", [[0, 2], [1, 0, 2], [0, 0, 1, 2], [1, 2]])
def test_a_dropped_swapped_or_doubled_line_breaks_the_chain(tmp_path, order):
    ledger = opened(tmp_path)
    for first in (0, 5, 10):
        ledger.charge(entry(first))
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(LedgerError, match="does not follow"):
        opened(tmp_path)


def test_a_line_that_is_no_entry_is_refused(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("{}\n")
    with pytest.raises(LedgerError, match="line 1 is not a ledger entry"):
        opened(tmp_path)


def test_a_ledger_knows_its_own_past(tmp_path):
    ledger = opened(tmp_path)
    heads = [ledger.head]
    for first in (0, 5):
        ledger.charge(entry(first))
        heads.append(ledger.head)
    assert all(ledger.holds(length, head) for length, head in enumerate(heads))
    assert not ledger.holds(1, heads[2])
    assert not ledger.holds(3, heads[2]) and not ledger.holds(-1, heads[2])
