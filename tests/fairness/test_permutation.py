import numpy as np

from jaxfair.fairness.permutation import can_change, own_groups, patient_strata, permuted_groups


def _patients(n: int = 60):
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(n), 2)
    y = (rng.random(2 * n) < 0.2).astype(float)
    return y, patients, rng.integers(0, 3, n)


def test_every_permutation_keeps_each_groups_number_of_ill_and_healthy_patients():
    y, patients, own = _patients()
    strata = patient_strata(y, patients)
    ill = np.bincount(patients, y, minlength=60) > 0
    for groups in permuted_groups(own, strata, 50, np.random.default_rng(1)):
        for kind in (ill, ~ill):
            expected = np.bincount(own[kind], minlength=3)
            assert np.bincount(groups[kind], minlength=3).tolist() == expected.tolist()


def test_patients_with_both_labels_change_places_only_among_themselves():
    y = np.array([0, 1, 0, 1, 0, 0, 1, 1.0])
    strata = patient_strata(y, np.repeat(np.arange(4), 2))
    assert strata[0] == strata[1] and len(set(strata.tolist())) == 3


def test_control_splits_the_strata():
    y, patients, _ = _patients()
    view = np.random.default_rng(2).integers(0, 2, 60)
    strata = patient_strata(y, patients, view[patients])
    for stratum in set(strata.tolist()):
        assert len(set(view[strata == stratum].tolist())) == 1


def test_groups_do_change_places():
    y, patients, own = _patients()
    found = permuted_groups(own, patient_strata(y, patients), 20, np.random.default_rng(1))
    assert len({groups.tobytes() for groups in found}) == 20


def test_a_patient_in_two_groups_has_no_own_group():
    assert own_groups(np.array([0, 1, 1]), np.array([0, 0, 1])) is None
    assert own_groups(np.array([0, 0, 1]), np.array([0, 0, 1])).tolist() == [0, 1]


def test_sides_that_hardly_share_a_stratum_cannot_change_places():
    one, other = np.repeat([0, 1], [98, 2]), np.repeat([0, 1], [2, 98])
    assert not can_change(one, other)
    assert can_change(np.repeat([0, 1], [90, 10]), np.repeat([0, 1], [10, 90]))
    assert can_change(np.zeros(5, int), np.zeros(2000, int))
    assert not can_change(np.zeros(5, int), np.ones(2000, int))
    assert not can_change(np.zeros(0, int), np.ones(9, int))
