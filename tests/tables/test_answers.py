"""Labels and splits mean the same to whoever reads them."""

import numpy as np
import pandas as pd
import pytest

from jaxfair.data.sources import table as source
from jaxfair.data.sources.columns import TableOptions
from jaxfair.errors import InputError
from jaxfair.fairness.predictions import checked
from jaxfair.tables import labels, splits

SPLITS = ["train", "Training", "VAL", "valid", "validate", "dev", "validation", "Testing", "test"]
NAMED = ["train", "train", *["validation"] * 5, "test", "test"]
LABELS = ["1", "0", "1.0", "-0.0", "True", "FALSE", "true", "1.00", "0"]


def test_a_table_of_images_and_a_table_of_predictions_read_the_same_words(tmp_path):
    names = [f"i{n}" for n in range(len(SPLITS))]
    images = pd.DataFrame({"image": names, "part": SPLITS, "finding": LABELS})
    images.to_csv(tmp_path / "table.csv", index=False)
    columns = {"file": "table.csv", "image": "image", "labels": ("finding",), "split": "part"}
    rows, _ = source.read_rows(tmp_path, TableOptions(table=columns))
    predictions = pd.DataFrame(
        {"image_id": names, "split": SPLITS, "y_true": LABELS, "y_score": np.arange(len(names))}
    )
    found = checked(predictions)
    assert rows["source_split"].tolist() == found["split"].tolist() == NAMED
    assert rows["label_finding"].tolist() == found["y_true"].tolist() == [1, 0, 1, 0, 1, 0, 1, 1, 0]


def test_an_empty_cell_is_no_label_and_a_split_only_where_it_may_be():
    empty = pd.Series(["", None, "NA"], name="part")
    assert labels(empty).isna().all()
    assert splits(empty, empty=True).tolist() == ["", "", ""]
    with pytest.raises(InputError, match=r"^f.csv, column part, row 2: '' is no split .3 such"):
        splits(empty, where="f.csv")


@pytest.mark.parametrize("cell", ["2", "yes", "0.5", "-1", 2, 0.5])
def test_what_is_no_label_is_refused(cell):
    with pytest.raises(InputError, match=r"^f.csv, column y, row 3: '.*' is no .*labels are 0"):
        labels(pd.Series([1, cell], name="y"), where="f.csv")
