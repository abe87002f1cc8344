import json

import numpy as np
import pandas as pd
import pytest

from jaxfair.data.sources import rsna
from jaxfair.errors import InputError
from tests.data.conftest import write_tables

THREE = {"a": rsna.NORMAL, "b": rsna.OPACITY, "c": rsna.OTHER}


def reasons(table):
    return dict(zip(table.rejected["image_id"], table.rejected["reason"]))


def test_rows_are_sorted_and_know_their_class(rsna_root):
    table = rsna.read_table(rsna_root(dict(reversed(THREE.items()))))
    assert table.rows["image_id"].tolist() == ["a", "b", "c"]
    assert table.rows["abnormal"].tolist() == [False, True, True]
    assert table.rejected.empty


def test_without_the_mapping_every_image_is_its_own_unit(rsna_root):
    table = rsna.read_table(rsna_root(THREE))
    assert not table.patient_ids_known
    assert table.rows["patient_id"].tolist() == ["a", "b", "c"]


def test_the_mapping_gives_the_patient_by_eight_digits(rsna_root):
    mapping = {"a": "00000013_005.png", "b": "00000013_006.png", "c": "00000002_000.png"}
    table = rsna.read_table(rsna_root(THREE, mapping=mapping))
    assert table.patient_ids_known
    assert table.rows["patient_id"].tolist() == ["00000013", "00000013", "00000002"]
    assert table.rows["patient_abnormal"].tolist() == [True, True, True]


def test_an_abnormal_film_that_is_missing_still_marks_its_patient(rsna_root):
    mapping = {"a": "00000013_005.png", "b": "00000013_006.png", "c": "00000002_000.png"}
    root = rsna_root(THREE, mapping=mapping)
    (root / rsna.IMAGES / "b.dcm").unlink()
    rows = rsna.read_table(root).rows.set_index("image_id")
    assert rows.loc["a", "patient_abnormal"]


def test_an_image_without_a_patient_is_set_aside_when_the_others_have_one(rsna_root):
    mapping = {"a": "00000013_005.png", "c": "00000002_000.png"}
    table = rsna.read_table(rsna_root(THREE, mapping=mapping))
    assert reasons(table) == {"b": "no patient in the mapping"}


def test_rows_without_files_and_files_without_rows_are_set_aside(rsna_root):
    root = rsna_root(THREE)
    (root / rsna.IMAGES / "a.dcm").rename(root / rsna.IMAGES / "z.dcm")
    table = rsna.read_table(root)
    assert reasons(table) == {"a": "row without a file", "z": "file without a row"}
    assert table.rows["image_id"].tolist() == ["b", "c"]


def test_repeated_rows_count_once_and_contradictions_are_set_aside(rsna_root):
    root = rsna_root(THREE)
    classes = pd.read_csv(root / rsna.CLASSES)
    extra = pd.DataFrame({"patientId": ["a", "b"], "class": [rsna.NORMAL, rsna.OTHER]})
    pd.concat([classes, extra]).to_csv(root / rsna.CLASSES, index=False)
    table = rsna.read_table(root)
    assert table.counts["repeated_class_rows"] == 2
    assert reasons(table) == {"b": "rows that contradict each other"}
    assert table.rows["image_id"].tolist() == ["a", "c"]


def test_a_box_on_a_film_called_normal_is_a_contradiction(rsna_root):
    root = rsna_root(THREE)
    labels = pd.read_csv(root / rsna.LABELS)
    labels.loc[0, "Target"] = 1
    labels.to_csv(root / rsna.LABELS, index=False)
    assert reasons(rsna.read_table(root)) == {"a": "rows that contradict each other"}


def test_an_image_in_only_one_csv_is_set_aside(rsna_root):
    root = rsna_root(THREE)
    labels = pd.read_csv(root / rsna.LABELS)
    labels.iloc[1:].to_csv(root / rsna.LABELS, index=False)
    assert reasons(rsna.read_table(root)) == {"a": "row in only one of the two CSVs"}


def test_labels_leave_the_third_class_out_or_count_it_as_an_anomaly():
    opacity, anything = rsna.FINDING_LABELS["opacity"], rsna.FINDING_LABELS["any"]
    assert [opacity[c] for c in (rsna.NORMAL, rsna.OPACITY)] == [0, 1]
    assert np.isnan(opacity[rsna.OTHER]) and anything[rsna.OTHER] == 1


@pytest.mark.parametrize("name", rsna.SPEC["needs"])
def test_each_missing_part_is_named_with_where_to_get_it(rsna_root, name):
    root = rsna_root(THREE)
    (root / name).rename(root / "elsewhere")
    with pytest.raises(rsna.MissingData, match=f"lacks {name}.*kaggle"):
        rsna.read_table(root)


def test_a_missing_and_an_empty_root_say_what_is_wanted(tmp_path):
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(rsna.MissingData) as caught:
            rsna.read_table(root)
        assert all(name in str(caught.value) for name in (*rsna.SPEC["needs"], str(root)))


def test_a_folder_without_films_is_missing_data(rsna_root):
    root = rsna_root(THREE)
    for path in (root / rsna.IMAGES).iterdir():
        path.unlink()
    with pytest.raises(rsna.MissingData, match=r"holds no \.dcm files"):
        rsna.read_table(root)


@pytest.mark.parametrize(
    "name, content, sentence",
    [
        (rsna.CLASSES, "patientId,class\na,Healthy\n", "holds the class 'Healthy'"),
        (rsna.CLASSES, "patientId,klass\na,Normal\n", "lacks the column class"),
        (rsna.CLASSES, "", "cannot be read as a table"),
        (rsna.CLASSES, "patientId,class\n", "has no rows"),
        (rsna.LABELS, "patientId,Target\na,2\n", "holds the Target '2'"),
        (rsna.MAPPING, "{", "is not the mapping file"),
        (rsna.MAPPING, '[{"subset_img_id": "a"}]', "is not the mapping file"),
        (rsna.MAPPING, '[{"subset_img_id": "a", "img_id": "x"}]', "names the NIH image 'x'"),
    ],
)
def test_a_wrong_table_is_refused_with_the_value(rsna_root, name, content, sentence):
    root = rsna_root(THREE)
    (root / name).write_text(content)
    with pytest.raises(InputError, match=sentence):
        rsna.read_table(root)


def test_the_mapping_may_hold_more_keys_and_more_images(rsna_root):
    root = rsna_root(THREE)
    entries = [
        {"subset_img_id": i, "img_id": "00000001_000.png", "SOPInstanceUID": "1.2"}
        for i in ("a", "b", "c", "d")
    ]
    (root / rsna.MAPPING).write_text(json.dumps(entries))
    assert rsna.read_table(root).rows["patient_id"].unique().tolist() == ["00000001"]


def test_tables_of_one_image_are_enough(rsna_root):
    root = rsna_root({"a": rsna.NORMAL})
    write_tables(root, {"a": rsna.NORMAL})
    assert len(rsna.read_table(root).rows) == 1
