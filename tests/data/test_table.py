import json
import pathlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from jaxfair.data import dataset
from jaxfair.data.config import make_data_config
from jaxfair.data.transforms import side_swap
from jaxfair.errors import InputError

DERM = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "derm-ham10000"
COLUMNS = {"image": "path", "patient": "person", "sex": "sex", "age": "age", "view": "view"}
LABELS = ("effusion_left", "effusion_right")


def rows(n=12, **changes):
    table = {
        "path": [f"films/{i}.png" for i in range(n)],
        "person": [f"p{i // 2}" for i in range(n)],
        "sex": (["male", "F", "unknown", ""] * n)[:n],
        "age": (["45", "0", "", "130"] * n)[:n],
        "view": (["PA", "AP", "lateral", "?"] * n)[:n],
        "site": (["north", "south", ""] * n)[:n],
        "part": ["train"] * (n - 4) + ["val", "val", "test", "test"],
        "effusion_left": (["0", "1", ""] * n)[:n],
        "effusion_right": (["1.0", "", ""] * n)[:n],
    }
    return pd.DataFrame(table | changes)


@pytest.fixture
def folder(tmp_path):
    """folder(table, mode="L") writes table.csv and its PNG files."""

    def make(table, mode="L"):
        root = tmp_path / "root"
        (root / "films").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name in table.get("path", []):
            pixels = rng.integers(0, 256, (20, 24) if mode == "L" else (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name)
        table.to_csv(root / "table.csv", index=False)
        return root

    return make


def opened(root, table=None, **fields):
    about = {"file": "table.csv", "labels": LABELS} | COLUMNS | (table or {})
    fields = {"source": "table", "image_size": 16, "prepared": str(root.parent / "set")} | fields
    config = make_data_config(root=str(root), table=about, **fields)
    return dataset.open_dataset(config, progress=False)


def test_a_table_becomes_a_dataset_with_its_groups_and_gaps(folder):
    made = opened(folder(rows()), {"attributes": ("site",)})
    table = made.manifest
    assert len(made) == 12 and made.unit == "patient" and made.tasks == LABELS
    assert table["sex"].tolist()[:4] == ["M", "F", "unknown", "unknown"]
    assert table["age_group"].tolist()[:4] == ["31-45", "0-17", "unknown", "unknown"]
    assert table["view"].tolist()[:4] == ["PA", "AP", "lateral", "unknown"]
    assert table["site"].tolist()[:3] == ["north", "south", "unknown"]
    assert made.label_mask([0, 1, 2]).tolist() == [[True, True], [True, False], [False, False]]
    assert made.labels([0]).tolist() == [[0.0, 1.0]]
    assert (table.loc[[2, 5], "split"] == "").all()  # nothing was asked of them
    assert made.card["labels"] and "path" not in table
    np.testing.assert_array_equal(side_swap(made.tasks), [1, 0])


def test_stored_pixels_are_those_of_the_file(folder):
    root = folder(rows())
    made = opened(root)
    film = np.asarray(Image.open(root / made.manifest["image_id"][3]), float)[:, 2:22]
    assert abs(made.images([3]).mean() - film.mean() / 255) < 0.01


def test_colour_is_kept_where_three_channels_are_asked_for(folder):
    root = folder(rows(), mode="RGB")
    made = opened(root, channels=3)
    assert made.spec["image"].shape == (16, 16, 3) == made.images([0]).shape[1:]
    grey = opened(root, prepared=str(root.parent / "grey"))
    luma = made.images([0]) @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(grey.images([0])[..., 0], luma, atol=0.006)


@pytest.mark.parametrize("split", ["random", "folds", "source"])
def test_no_patient_crosses_a_split(folder, split):
    made = opened(folder(rows(40)), {"split": "part"}, split=split)
    placed = made.manifest[made.manifest["split"] != ""]
    assert (placed.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(placed["split"]) >= {"train", "test"}


def test_folds_test_every_image_once(folder):
    root, tested = folder(rows(40)), []
    for fold in range(4):
        made = opened(root, split="folds", folds=4, fold=fold)
        tested += made.manifest.loc[made.rows("test"), "image_id"].tolist()
    asked = made.manifest[[f"label_{name}" for name in LABELS]].notna().any(axis=1)
    assert sorted(tested) == sorted(made.manifest.loc[asked, "image_id"])


def test_views_that_are_not_wanted_take_no_part(folder):
    made = opened(folder(rows()), views=("AP", "PA"))
    placed = made.manifest[made.manifest["split"] != ""]
    assert set(placed["view"]) <= {"AP", "PA"} and len(made) == 12


def test_a_label_called_anomaly_serves_the_anomaly_detector(folder):
    ill = ["1" if i in (0, 5) else "0" for i in range(40)]
    made = opened(folder(rows(40, anomaly=ill)), {"labels": ("anomaly",)})
    table = made.manifest.set_index("patient_id")
    assert made.tasks == ("anomaly",) and set(table.loc[["p0", "p2"], "split"]) <= {
        "validation",
        "test",
    }
    assert (table.loc[table["split"] == "train", "label_anomaly"] == 0).all()


def test_one_of_the_labels_may_be_chosen(folder):
    made = opened(folder(rows()), labels=("effusion_right",))
    assert made.tasks == ("effusion_right",) and made.labels([0]).shape == (1, 1)
    assert (made.manifest.loc[made.manifest["label_effusion_right"].isna(), "split"] == "").all()


def test_lost_broken_and_nobodys_rows_are_set_aside_with_the_reason(folder):
    people = ["" if i == 3 else f"p{i}" for i in range(12)]
    root = folder(rows(person=people))
    (root / "films/1.png").unlink()
    (root / "films/2.png").write_bytes(b"no picture")
    (root / "films/4.png").write_bytes((root / "films/4.png").read_bytes()[:100])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "films/5.png")
    made = opened(root)
    rejected = pd.read_csv(made.folder / "rejected.csv").set_index("file")["reason"]
    assert rejected["1.png"] == "row without a file" and "is no image" in rejected["2.png"]
    assert rejected["3.png"] == "row without a patient" and "cannot be decod" in rejected["4.png"]
    assert "all its pixels are equal" in rejected["5.png"]
    assert made.card["rejected"]["total"] == 5 == sum(made.card["rejected"]["by_reason"].values())
    reason = "is no image (DICOM, PNG, JPEG, npy or npz, whatever its name); replace it."
    assert made.card["rejected"]["by_reason"][reason] == 1
    assert len(made) == 7


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"effusion_left": ["2"] * 12}, "column effusion_left, row 2: '2' is no label .12 such"),
        ({"path": ["films/0.png"] * 12}, "names the image 'films/0.png' in its column path twice"),
        ({"part": ["half"] * 12}, "column part, row 2: 'half' is no split .* or empty"),
    ],
)
def test_a_wrong_cell_is_one_sentence(folder, changes, sentence):
    root = folder(rows(**changes))
    with pytest.raises(InputError, match=sentence):
        opened(root, {"split": "part"})


def test_a_missing_column_is_named_with_those_that_there_are(folder):
    root = folder(rows().drop(columns="person"))
    with pytest.raises(InputError, match=r"table.csv lacks the column person; it has path, sex"):
        opened(root)


def test_paths_that_all_lead_nowhere_are_one_sentence(folder):
    root = folder(rows())
    table = rows().assign(path=[f"elsewhere/{i}.png" for i in range(12)])
    table.to_csv(root / "table.csv", index=False)
    with pytest.raises(InputError, match=r"None of the 12 images .* column path are relative to"):
        opened(root)


def test_a_patient_in_two_published_splits_is_refused(folder):
    root = folder(rows(part=["train"] * 9 + ["test"] + ["train"] * 2, person=["p5"] * 12))
    with pytest.raises(InputError, match=r"patient 'p5' is in the splits test and train"):
        opened(root, {"split": "part"}, split="source")


def test_a_published_split_that_is_not_there_is_one_sentence(folder):
    root = folder(rows())
    with pytest.raises(InputError, match=r"data.split is 'source'.*data.table.split names"):
        opened(root, split="source")


def test_missing_files_say_what_is_wanted(folder, tmp_path):
    with pytest.raises(InputError, match=r"does not exist. Wanted in one folder: the CSV"):
        opened(tmp_path / "nowhere")
    root = folder(rows())
    with pytest.raises(
        InputError,
        match=r"no file other.csv; name the table as data.table.file .there are table.csv",
    ):
        opened(root, {"file": "other.csv"})


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_stack_belongs_to_the_rows_by_position(folder, suffix):
    root = folder(rows().drop(columns="path"))
    images = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    name = root / f"images.{suffix}"
    np.save(name, images) if suffix == "npy" else np.savez(name, images=images, ids=np.arange(12))
    about = {"image": None, "stack": name.name, "unit": "lesion"}
    made = opened(root, about, channels=3)
    np.testing.assert_array_equal(made.pixels, images)
    assert made.unit == "lesion" and len(made.units("lesion", "train")[0]) > 0
    with pytest.raises(InputError, match=r"'patient' needs true patient ids.*unit 'lesion'"):
        made.units("patient")
    with pytest.raises(InputError, match=r"it must be 'lesion' or 'image'"):
        made.units("eye")
    assert json.loads((made.folder / "prepared.json").read_text())["unit"] == "lesion"


def test_a_stack_of_another_length_is_refused(folder):
    root = folder(rows().drop(columns="path"))
    np.save(root / "images.npy", np.zeros((11, 16, 16), np.uint8))
    with pytest.raises(InputError, match=r"holds 11 images and the table has 12 rows"):
        opened(root, {"image": None, "stack": "images.npy"})


def test_without_a_column_of_patients_the_unit_is_the_image(folder):
    made = opened(folder(rows()), {"patient": None})
    assert made.unit == "image"
    with pytest.raises(InputError, match=r"name the column of patients as data.table.patient"):
        made.units("patient")


def test_another_table_of_the_same_folder_is_another_prepared_set(folder):
    root = folder(rows())
    opened(root)
    with pytest.raises(InputError, match=r"was prepared with table .*, and .* is asked for"):
        opened(root, {"labels": ("effusion_left",)})


@pytest.mark.parametrize(
    "table, sentence",
    [
        ({"labels": ()}, "data.table.labels is empty"),
        ({"stack": "x.npy"}, "either image .* or stack"),
        ({"unit": "eye"}, "data.table.unit is 'eye'; it must be one of patient, lesion"),
        ({"sex": "age"}, "names the column 'age' twice"),
        ({"patients": "person"}, "data.table.patients is no option.*'patient'"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused_at_the_door(table, sentence):
    about = {"file": "table.csv", "labels": LABELS} | COLUMNS | table
    with pytest.raises(InputError, match=sentence):
        make_data_config(source="table", table=about)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"source": "table"}, "needs the section data.table"),
        (
            {"table": {"file": "a", "labels": ("b",), "image": "c"}},
            "data.table is an option of data.source 'table' or 'volumes', and the source is 'rsna'",
        ),
        (
            {"source": "cxr14", "split": "patient"},
            "this source has no task 'anomaly'; use 'random'",
        ),
        ({"channels": 3}, "data.channels is 3; images of rsna have 1"),
        ({"source": "cxr14", "labels": ("hernie",)}, "data.labels has 'hernie'.*'hernia'"),
        ({"fold": 5}, "data.fold is 5; it must be 0 to data.folds - 1"),
        ({"views": ("AP", "LL")}, "data.views has 'LL'"),
        ({"source": "chexpert", "uncertain": "half"}, "data.uncertain is 'half'"),
        ({"resize": "squash"}, "data.resize is 'squash'"),
    ],
)
def test_options_that_a_source_does_not_have_are_refused(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        make_data_config(**fields)


@pytest.mark.skipif(not DERM.is_dir(), reason="needs the skin lesions of shared/data")
def test_the_skin_lesions_are_read_as_a_table_with_a_stack(tmp_path):
    about = {"file": "metadata.csv", "stack": "images_48_rgb.npz", "id": "image_id",
             "patient": "lesion_id", "unit": "lesion", "sex": "sex", "age": "age",
             "labels": ("malignant",)}  # fmt: skip
    config = make_data_config(source="table", root=str(DERM), prepared=str(tmp_path / "set"),
                                table=about, image_size=48, channels=3, split="folds")  # fmt: skip
    made = dataset.open_dataset(config, progress=False)
    assert len(made) == 5984 and made.unit == "lesion" and made.card["rejected"]["total"] == 0
    groups = made.manifest.groupby("sex")["label_malignant"].agg(["sum", "size"])
    assert groups.loc["F"].tolist() == [361, 2737] and groups.loc["M"].tolist() == [577, 3211]
    given = pd.read_csv(DERM / "metadata.csv").set_index("image_id")
    with np.load(DERM / "images_48_rgb.npz") as stack:
        image = stack["images"][given.loc[made.manifest["image_id"][777], "index"]]
    np.testing.assert_array_equal(made.pixels[777], image)
