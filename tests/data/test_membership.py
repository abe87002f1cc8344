"""Nobody's place, group or example follows from somebody else's data (protocol P15)."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.data import dataset, splits
from jaxfair.data.config import make_data_config
from jaxfair.data.sources import rsna
from jaxfair.errors import InputError
from tests.data.conftest import write_tables

COLUMNS = {"image": "path", "patient": "person", "id": "id", "sex": "sex", "age": "age"}
CURATED = {
    "curate": "public",
    "curate_label": "mass",
    "curate_toward": {"sex": ("F",), "site": ("north",)},
    "curate_keep": {"sex": 0.5, "site": 0.7},
    "curate_splits": ("train", "validation", "test"),
}
COMPOSED = {"keep_by": ("sex", "site"), "keep": (0.5, 0.2, 0.0, 0.9, 0.4, 1.0)}
CASES = {
    "patient": {"unit": "patient"},
    "image": {"unit": "image"},
    "image without patients": {"unit": "image", "patient": None},
    "folds": {"unit": "patient", "split": "folds"},
    "curated patients": {"unit": "patient", **CURATED},
    "curated images": {"unit": "image", **CURATED},
    "composed patients": {"unit": "patient", **COMPOSED, "keep_portion": 0.8},
    "composed images": {"unit": "image", **COMPOSED, "keep_where": ("site=north", "site=south")},
    "published": {"unit": "patient", "split": "source"},
    "anomaly": {"unit": "patient", "split": "patient", "labels": ("anomaly",)},
}


def crowd(root):
    """Thirteen people with all that could decide over others: copies, ties, gaps, bad files."""
    rng, rows = np.random.default_rng(0), []
    copied = rng.integers(0, 256, (12, 12)).astype(np.uint8)
    for person in range(13):
        for image in range(1 + person % 3):
            name = f"{person:02d}-{image}"
            path, same = root / f"{name}.png", person in (1, 4, 5, 9)
            pixels = copied if same else rng.integers(0, 256, (12, 12)).astype(np.uint8)
            if person == 7:
                path.write_bytes(b"no image")
            elif person == 8:
                Image.fromarray(np.zeros((12, 12), np.uint8)).save(path)
            elif person != 6:
                Image.fromarray(pixels).save(path)
            rows.append(
                {
                    "path": path.name, "id": name, "person": f"p{person}",
                    "sex": ["F", "M", "", "odd"][person % 4], "age": ["45", "30", "", "999"][image],
                    "part": {2: "val", 3: "test", 10: ""}.get(person, "train"),
                    "site": ["north", "south", ""][person % 3],
                    "anomaly": ["0", "0", "1", ""][person % 4], "mass": str(image % 2),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def prepared(root, table, out, *, unit, patient="person", labels=("mass",), split="random", **more):
    """Everything that belongs to one unit, by its id."""
    table.to_csv(root / "table.csv", index=False)
    about = COLUMNS | {"file": "table.csv", "patient": patient, "labels": labels, "split": "part"}
    about |= {"attributes": ("site",), "values": {"site": ("north", "south", "east")}}
    config = make_data_config(
        source="table", root=str(root), prepared=str(out), image_size=12, split=split, table=about,
        groups=("sex", "site"), **more,
    )  # fmt: skip
    made = dataset.open_dataset(config, progress=False)
    found = {}
    for part in ("train", "validation", "test"):
        ids, rows = made.units(unit, part)
        codes = made.unit_groups(unit, "site", part)
        for name, own, code in zip(ids, rows, codes, strict=True):
            facts = made.manifest.iloc[own].to_csv(index=False)
            example = b"".join(read(own).tobytes() for read in made.fields.values())
            found[name] = (part, int(code), facts, example)
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_unit_more_or_less_changes_nobody_else(tmp_path, case):
    table, column = crowd(tmp_path), {"patient": "person", "image": "id"}[case["unit"]]
    everybody = prepared(tmp_path, table, tmp_path / "set", **case)
    assert {"train", "test"} <= {facts[0] for facts in everybody.values()}
    for number, name in enumerate(table[column].unique()):
        if column == "id" and number % 3 != 1:
            continue
        fewer = prepared(tmp_path, table[table[column] != name], tmp_path / str(number), **case)
        assert fewer == {n: facts for n, facts in everybody.items() if n != name}, name


def test_an_image_is_no_unit_where_a_patient_with_disease_may_not_train(tmp_path):
    """One abnormal image less would bring the patient's others into training."""
    case = {"unit": "image", "split": "patient", "labels": ("anomaly",)}
    with pytest.raises(InputError, match="images decide over each other"):
        prepared(tmp_path, crowd(tmp_path), tmp_path / "set", **case)
    alone = case | {"patient": None}  # every image is its own patient
    assert prepared(tmp_path, crowd(tmp_path), tmp_path / "alone", **alone)


@pytest.mark.parametrize("mapped", [True, False])
def test_all_copies_stay_in_rsna_and_the_card_names_them(rsna_root, tmp_path, mapped):
    patients = {"a": "00000001_0.png", "b": "00000001_1.png", "c": "00000002_0.png"}
    root = rsna_root(dict.fromkeys("abc", rsna.NORMAL), mapping=patients if mapped else None)
    images = root / rsna.IMAGES
    for name in "bc":
        (images / f"{name}.dcm").write_bytes((images / "a.dcm").read_bytes())
    for left in ("abc", "bc"):
        write_tables(root, dict.fromkeys(left, rsna.NORMAL))
        config = make_data_config(root=str(root), prepared=str(tmp_path / left), image_size=16)
        made = dataset.open_dataset(config, progress=False)
        assert made.manifest["image_id"].tolist() == list(left)
        copies = {n: [list(pair) for pair in pairs] for n, pairs in made.card["copies"].items()}
        first = [[left[0], name] for name in left[1:]]
        own = [["a", "b"]] if mapped and left == "abc" else []
        assert copies == {"of_one_unit": own, "of_two_units": [p for p in first if p not in own]}
        json.dumps(made.card, allow_nan=False)


def test_one_published_validation_image_takes_no_validation_set_from_others():
    names, given = [str(i) for i in range(40)], ["validation"] + ["train"] * 39
    for carve in (True, False):
        split = splits.split_as_published(names, given, salt="s", carve=carve)
        without = splits.split_as_published(names[1:], given[1:], salt="s", carve=carve)
        assert split[0] == "validation" and split[1:].tolist() == without.tolist()
        assert ("validation" in without) == carve


def test_images_that_only_their_place_names_are_refused(tmp_path):
    np.save(tmp_path / "stack.npy", np.zeros((3, 8, 8), np.uint8))
    pd.DataFrame({"mass": [0, 1, 1]}).to_csv(tmp_path / "table.csv", index=False)
    about = {"file": "table.csv", "stack": "stack.npy", "labels": ("mass",)}
    with pytest.raises(InputError, match=r"data.table.id"):
        make_data_config(source="table", root=str(tmp_path), table=about)
