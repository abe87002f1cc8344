"""Predictions from a CSV, from parquet and from memory are the same, or refused in one sentence."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxfair.errors import InputError
from jaxfair.fairness.groups import group_labels
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.reading import open_predictions, read_predictions
from jaxfair.fairness.table import fairness_table
from jaxfair.tables import texts

IDS = st.integers(0, 10**9) | st.text("abc017_ .", min_size=1, max_size=4)
SITES = [
    st.integers(0, 3),
    st.integers(0, 3) | st.none(),
    st.sampled_from(["1", "1.0", "NA", "", " x", "unknown", "Unknown", "é", None]),
    st.sampled_from([1, "1", 2.0, None, "x"]),
    st.booleans(),
]
AGES = st.sampled_from([45, 45.5, None, "045Y", "89+", "60+", "45,5", "", "old", -3, 200])


@st.composite
def frames(draw):
    n = draw(st.integers(2, 6))

    def column(cells, unique=False):
        found = draw(st.lists(cells, min_size=n, max_size=n))
        return pd.Series(found, dtype=object).convert_dtypes() if draw(st.booleans()) else found

    labels = draw(st.sampled_from([[0, 1], [0.0, 1.0, None], ["0", "1", ""], [True, False]]))
    frame = pd.DataFrame({"y_true": [labels[i % len(labels)] for i in range(n)]})
    frame["y_score"] = draw(st.lists(st.floats(-9, 9), min_size=n, max_size=n))
    patients = sorted({draw(IDS) for _ in range(n)}, key=str)
    frame["patient_id"] = [patients[i % len(patients)] for i in range(n)]
    frame["site"] = column(draw(st.sampled_from(SITES)))
    frame["age"] = column(AGES)
    return frame


def outcome(make):
    try:
        return make()
    except InputError:
        return None


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(frame=frames())
def test_csv_parquet_and_memory_give_the_same_predictions(tmp_path, frame):
    kept = frame.copy()
    expected = outcome(lambda: checked(frame))
    pd.testing.assert_frame_equal(frame, kept)  # and what was given is left alone
    frame.to_csv(tmp_path / "t.csv", index=False)
    mixed = {name: texts(frame[name]) for name in frame if frame[name].dtype == object}
    frame.assign(**mixed).to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        found = outcome(lambda name=name: open_predictions(tmp_path / name, one_label=True).rows)
        assert (found is None) == (expected is None)
        if found is not None:
            pd.testing.assert_frame_equal(found, expected)
    if expected is not None:
        pd.testing.assert_frame_equal(checked(expected), expected)
        assert group_labels(expected, "site").tolist() == expected["site"].tolist()


def _rows(n=8, **columns):
    rows = {"image_id": [f"i{i}" for i in range(n)], "y_true": [0, 1] * (n // 2)}
    return pd.DataFrame({**rows, "y_score": np.arange(n) / n, **columns})


def test_a_blank_beside_whole_numbers_changes_no_group_of_a_large_file(tmp_path):
    n = 140_000
    site = pd.Series([1, 2] * (n // 2), dtype=object)
    site[n - 1] = None
    _rows(n, site=site).to_csv(tmp_path / "t.csv", index=False)
    assert set(read_predictions(tmp_path / "t.csv")["site"]) == {"1", "2", "unknown"}


def test_tasks_and_ids_of_numbers_are_names():
    rows = _rows(task=[0, 0, 0, 0, 1, 1, 1, 1], patient_id=[7.0] * 8)
    found = checked(rows)
    assert set(found["task"]) == {"0", "1"} and set(found["patient_id"]) == {"7"}
    assert set(fairness_table(rows, attributes=(), n_bootstrap=2)["task"]) == {"0", "1"}


@pytest.mark.parametrize("ids", [["1", "1.0"], ["007", "7"], ["p 1", "P1"]])
def test_patients_that_are_written_in_two_ways_are_refused(ids):
    with pytest.raises(InputError, match=r"patient_id has .* and .* may be one patient \(1 such"):
        checked(_rows(patient_id=ids * 4))


@pytest.mark.parametrize("name", ["image_id", "task", "patient_id"])
def test_an_empty_id_or_task_is_refused_however_it_is_empty(name):
    for empty in (None, "NA", " ", float("nan")):
        cells = pd.Series([f"x{i}" for i in range(7)] + [empty], dtype=object)
        with pytest.raises(InputError, match=f"Column {name} is empty in 1 rows"):
            checked(_rows().assign(**{name: cells}))


def test_splits_are_understood_as_people_write_them():
    words = ["Train", "VAL", "valid", "testing", "test ", "training", "Validation", "TEST"]
    assert checked(_rows(split=words))["split"].tolist() == [
        "train", "validation", "validation", "test", "test", "train", "validation", "test",
    ]  # fmt: skip


def _file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    return tmp_path / name


def test_what_people_send_is_read(tmp_path):
    expected = read_predictions(
        _file(tmp_path, "t.csv", b"y_true,y_score,sex\n1,0.9,F\n0,0.432,M\n")
    )
    semicolon = b"\xef\xbb\xbfy_true;y_score;sex\r\n1;0,9;F\r\n0;0,432;M\r\n"
    percent = "y_true\ty_score\tsex\n1\t90%\tF\n0\t43.2%\tM\n"
    for name, content in {
        "semicolon.csv": semicolon,
        "tab.tsv": percent.encode(),
        "utf16.txt": percent.encode("utf-16"),
        "t.csv.gz": gzip.compress(semicolon),
        "no suffix": semicolon,
    }.items():
        pd.testing.assert_frame_equal(read_predictions(_file(tmp_path, name, content)), expected)
    expected[["y_true", "y_score", "sex"]].to_excel(tmp_path / "t.xlsx", index=False)
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "t.xlsx"), expected)


def _two_tasks(second: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([_rows().assign(task="good"), second.assign(task="bad")], ignore_index=True)


BAD = {
    "one label": (_rows().assign(y_true=1), "All 8 test rows of task 'bad' have y_true 1"),
    "a score that is none": (
        _rows().assign(y_score=["x", *range(7)]),
        "column y_score, row 10: 'x' is no finite number",
    ),
    "a missing score": (_rows().assign(y_score=[None, *range(7)]), "not a finite number in 1 of 8"),
    "a label that is none": (_rows().assign(y_true=2), "column y_true, row 10: '2' is no label"),
    "an image twice": (_rows().assign(image_id="i"), "Image 'i' has more than one row"),
    "no test rows": (_rows().assign(split="train"), r"No row has split 'test' (task 'bad')"),
}


@pytest.mark.parametrize("why", BAD)
def test_a_bad_label_is_set_aside_with_its_reason_and_the_others_stand(tmp_path, why):
    second, reason = BAD[why]
    table = _two_tasks(second)
    split = table["split"].fillna("test") if "split" in table else "test"
    table.assign(split=split).to_csv(tmp_path / "t.csv", index=False)
    found = open_predictions(tmp_path / "t.csv")
    assert list(found.aside) == ["bad"] and reason in found.aside["bad"]
    assert set(found.rows["task"]) == {"good"} and len(found.rows) == 8
    with pytest.raises(InputError) as caught:
        read_predictions(tmp_path / "t.csv")
    assert reason in str(caught.value)


def test_if_every_label_is_bad_the_table_is_refused(tmp_path):
    table = _two_tasks(_rows()).assign(y_true=1)
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="All 8 test rows of task 'bad'"):
        open_predictions(tmp_path / "t.csv")


def test_labels_that_are_well_alone_and_contradict_each_other_are_refused(tmp_path):
    table = _two_tasks(_rows()).assign(patient_id=[f"p{i}" for i in range(16)])
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="Image 'i0' has patient_id 'p0' and 'p8'"):
        open_predictions(tmp_path / "t.csv")


def test_what_was_lost_is_counted_and_spelled(tmp_path):
    ages = ["045Y", "89+", "60+", "60+", "?", "", "200", "7"]
    rows = _rows(age=ages, split=["validation", "validation", *["test"] * 6], patient_id=["a"] * 8)
    rows.loc[7, "y_true"] = None
    rows.to_csv(tmp_path / "t.csv", index=False)
    found = open_predictions(tmp_path / "t.csv")
    assert found.rows["age_group"].tolist() == ["31-45", "76-110"] + ["unknown"] * 5
    assert found.remarks == (
        "1 of 8 rows have no label (y_true) and are left out.",
        "Column age: 4 of 8 rows are not understood as one age group and are unknown; the"
        " commonest: '60+' (2), '?' (1), '200' (1).",
        "1 patients are in validation and in test: thresholds have seen some of those whom they"
        " are tested on.",
    )
