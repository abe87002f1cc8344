import json
import pathlib

import jax
import numpy as np
import pandas as pd
import pytest
import tensorflow_datasets as tfds

from jaxfair.data import dataset, decode, store
from jaxfair.data.config import make_data_config
from jaxfair.data.sources import rsna
from jaxfair.errors import InputError

MAPPING = {"a": "00000001_000.png", "b": "00000001_001.png", "c": "00000002_000.png",
           "d": "00000003_000.png"}  # fmt: skip
FOUR = {"a": rsna.NORMAL, "b": rsna.OPACITY, "c": rsna.OTHER, "d": rsna.NORMAL}


def opened(root, tmp_path, **fields):
    fields = {"image_size": 16, "root": str(root), "prepared": str(tmp_path / "set")} | fields
    return dataset.open_dataset(make_data_config(**fields), progress=False)


@pytest.fixture(scope="module")
def made(small_phantom, tmp_path_factory):
    return opened(small_phantom, tmp_path_factory.mktemp("prepared"), image_size=32)


def test_a_phantom_opens_and_says_what_it_is(made):
    assert (made.data, made.population, made.unit) == ("phantom", "phantom", "patient")
    assert made.tasks == ("anomaly",) and made.selection == "independent" and len(made) == 60
    assert made.spec == {
        "image": jax.ShapeDtypeStruct((32, 32, 1), np.float32),
        "label": jax.ShapeDtypeStruct((1,), np.float32),
        "label_mask": jax.ShapeDtypeStruct((1,), np.bool_),
    }
    assert made.spec == make_data_config(image_size=32).spec
    assert len(made.digest) == 64 and "PHANTOM" in made.card["dataset"]["title"]


def test_rows_of_the_manifest_are_rows_of_the_images(made, small_phantom):
    for row in (0, 31, 59):
        path = small_phantom / rsna.IMAGES / f"{made.manifest['image_id'][row]}.dcm"
        picture, _ = decode.decode(path)
        expected = decode.area_resize(picture, 32, 32)
        np.testing.assert_allclose(made.images([row])[0, :, :, 0], expected, atol=0.51 / 255)


def test_a_label_that_was_not_asked_is_masked_and_zero(made):
    rows = np.arange(len(made))
    told = made.manifest["label_anomaly"].to_numpy()
    np.testing.assert_array_equal(made.label_mask(rows)[:, 0], ~np.isnan(told))
    np.testing.assert_array_equal(made.labels(rows)[:, 0], np.nan_to_num(told))
    assert not made.label_mask(rows).all() and made.labels(rows).dtype == np.float32


def test_images_come_in_any_order_as_float32(made):
    batch = made.images(np.array([5, 1, 5]))
    assert batch.shape == (3, 32, 32, 1) and batch.dtype == np.float32
    assert np.array_equal(batch[0], batch[2]) and made.images([]).shape == (0, 32, 32, 1)


@pytest.mark.parametrize("rows", [[-1], [60], [0, 100]])
def test_a_row_that_does_not_exist_is_an_error_and_never_wraps(made, rows):
    with pytest.raises(IndexError, match="Rows are 0 to 59"):
        made.images(rows)


def test_tfds_reads_the_prepared_set_in_manifest_order(made):
    source = tfds.data_source(store.NAME, data_dir=made.folder, split="all")
    assert [r["image_id"].decode() for r in source] == made.manifest["image_id"].tolist()
    assert np.array_equal(source[7]["image"], made.pixels[7])


def test_units_are_patients_with_all_their_training_images(made):
    ids, rows = made.units("patient")
    table = made.manifest
    assert ids == sorted(table.loc[table["split"] == "train", "patient_id"].unique())
    assert np.array_equal(np.sort(np.concatenate(rows)), made.rows("train"))
    assert all((table["patient_id"].iloc[r] == i).all() for i, r in zip(ids, rows, strict=True))
    assert len(made.units("image", "test")[0]) == len(made.rows("test"))


def test_only_normals_train_and_no_patient_is_in_two_splits(made):
    table = made.manifest
    assert (table.loc[table["split"] == "train", "label_anomaly"] == 0).all()
    placed = table[table["split"] != ""]
    assert (placed.groupby("patient_id")["split"].nunique() == 1).all()
    assert (table.loc[table["label_anomaly"].isna(), "split"] == "").all()
    assert (table.loc[table["finding"] == rsna.OTHER, "label_anomaly"]).isna().all()


def test_a_film_of_the_third_class_keeps_its_patient_out_of_training(rsna_root, tmp_path):
    findings = {f"n{i}": rsna.NORMAL for i in range(12)} | {f"o{i}": rsna.OTHER for i in range(12)}
    mapping = {name: f"{int(name[1:]):08d}_000.png" for name in findings}
    table = opened(rsna_root(findings, mapping=mapping), tmp_path).manifest
    assert set(table.loc[table["abnormal"], "split"]) == {""}
    assert set(table.loc[~table["abnormal"], "split"]) == {"validation", "test"}


def test_the_impossible_age_is_unknown_and_counted(made):
    unknown = made.manifest["age"].isna()
    assert unknown.sum() >= 1 and (made.manifest.loc[unknown, "age_group"] == "unknown").all()
    assert made.card["headers"]["age"]["above 110"] == unknown.sum() == made.card["missing"]["age"]


def test_the_card_counts_every_image_once(made):
    counts = pd.DataFrame(made.card["counts"])
    assert counts["images"].sum() == 60
    assert set(counts) == {"split", "label_anomaly", "sex", "age_group", "view", "images"}
    men = counts.query("sex == 'M' and split == 'test'")["images"].sum()
    assert men == made.manifest.query("sex == 'M' and split == 'test'").shape[0]
    assert json.loads((made.folder / "data_card.json").read_text())["images"] == 60


def test_opening_twice_gives_the_same_digest_and_prepares_nothing(made, small_phantom, monkeypatch):
    monkeypatch.setattr(dataset.build, "prepare_folder", None)
    again = opened(small_phantom, made.folder, prepared=str(made.folder), image_size=32)
    assert again.digest == made.digest
    pd.testing.assert_frame_equal(again.manifest, made.manifest)


def test_another_rule_needs_no_new_prepare_and_changes_the_digest(made, small_phantom):
    fields = {"prepared": str(made.folder), "image_size": 32}
    other = opened(small_phantom, made.folder, anomaly="any", **fields)
    salted = opened(small_phantom, made.folder, split_salt="else", **fields)
    assert len({made.digest, other.digest, salted.digest}) == 3
    assert other.manifest["label_anomaly"].notna().all()
    assert not other.manifest["split"].equals(made.manifest["split"])


def test_the_digest_holds_the_rule_also_where_it_changes_nothing(rsna_root, tmp_path):
    root = rsna_root({"ill": rsna.OPACITY})  # validation or test under any salt
    found = {opened(root, tmp_path, split_salt=str(i)).digest for i in range(8)}
    assert len(found) == 8


def test_a_lost_pack_is_made_again_and_a_damaged_one_refused(small_phantom, tmp_path):
    first = opened(small_phantom, tmp_path)
    packed = first.folder / store.PIXELS
    packed.unlink()
    assert opened(small_phantom, tmp_path).digest == first.digest
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.unlink()
    packed.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        opened(small_phantom, tmp_path)


def test_a_prepared_set_is_enough_when_its_source_has_gone(rsna_root, tmp_path):
    root = rsna_root(FOUR, mapping=MAPPING)
    first = opened(root, tmp_path)
    root.rename(tmp_path / "gone")
    assert opened(root, tmp_path).digest == first.digest


def test_a_prepared_set_of_other_files_is_refused_with_the_difference(rsna_root, tmp_path):
    root = rsna_root(FOUR, mapping=MAPPING)
    opened(root, tmp_path)
    with pytest.raises(InputError, match="image_size 16, and 32 is asked for"):
        opened(root, tmp_path, image_size=32)
    (root / rsna.IMAGES / "a.dcm").unlink()
    with pytest.raises(InputError, match="was prepared from other files than"):
        opened(root, tmp_path)


def test_a_folder_that_is_no_prepared_set_is_refused(rsna_root, tmp_path):
    root = rsna_root(FOUR)
    (tmp_path / "set").write_text("mine")
    with pytest.raises(InputError, match="is no prepared dataset"):
        opened(root, tmp_path)


def test_bad_files_are_set_aside_with_the_reason_and_the_rest_goes_on(
    rsna_root, write_dicom, tmp_path
):
    names = ["cut", "empty", "text", "flat", "gone", "frames", "copy", "good"]
    root = rsna_root(dict.fromkeys(names, rsna.NORMAL) | {"ill": rsna.OPACITY})
    images = root / rsna.IMAGES
    content = (images / "cut.dcm").read_bytes()
    (images / "cut.dcm").write_bytes(content[:-100])
    (images / "empty.dcm").write_bytes(b"")
    (images / "text.dcm").write_bytes(b"hello")
    write_dicom(images / "flat.dcm", np.zeros((8, 8), np.uint8))
    write_dicom(images / "frames.dcm", np.arange(128, dtype=np.uint8).reshape(2, 8, 8))
    (images / "gone.dcm").unlink()
    (images / "good.dcm").write_bytes((images / "copy.dcm").read_bytes())
    made = opened(root, tmp_path)
    assert made.manifest["image_id"].tolist() == ["copy", "good", "ill"]
    rejected = pd.read_csv(made.folder / "rejected.csv").set_index("image_id")["reason"]
    assert "cannot be decoded" in rejected["cut"] and "is no image (DICOM" in rejected["empty"]
    assert "is no image (DICOM" in rejected["text"] and "pixels are equal" in rejected["flat"]
    assert rejected["gone"] == "row without a file" and "2 frames" in rejected["frames"]
    assert made.card["copies"]["of_two_units"] == [["copy", "good"]]
    assert made.card["rejected"]["total"] == 6 == sum(made.card["rejected"]["by_reason"].values())


def test_headers_are_normalised_and_counted(rsna_root, tmp_path):
    headers = {"a": {"age": "043Y"}, "b": {"age": "151", "PatientSex": ""},
               "c": {"age": "", "ViewPosition": "LLO"}, "d": {"PatientSex": "O"}}  # fmt: skip
    made = opened(rsna_root(FOUR, headers=headers), tmp_path)
    table = made.manifest
    assert table["sex"].tolist() == ["F", "unknown", "F", "unknown"]
    assert table["view"].tolist() == ["PA", "PA", "unknown", "PA"]
    assert table["age_group"].tolist() == ["31-45", "unknown", "unknown", "31-45"]
    tallies = made.card["headers"]
    assert tallies["age"] == {"above 110": 1, "age string": 1, "missing": 1, "plain number": 1}
    assert tallies["sex"] == {"as written": 2, "missing": 1, "other": 1}
    assert made.card["missing"] == {"sex": 2, "age": 2, "view": 1}
    assert made.card["unread"] == {"age": {"151": 1}, "sex": {"O": 1}, "view": {"LLO": 1}}


def test_without_the_mapping_the_unit_patient_is_refused(rsna_root, tmp_path):
    made = opened(rsna_root(FOUR), tmp_path)
    assert made.unit == "image" and made.population == "nih-chestxray14"
    assert made.data == "real" and "PHANTOM" not in json.dumps(made.card)
    with pytest.raises(InputError, match="'patient' needs true patient ids"):
        made.units("patient")
    with pytest.raises(InputError, match="it must be 'image'"):
        made.units("person")


def test_no_film_that_can_be_decoded_is_one_sentence(rsna_root, tmp_path):
    root = rsna_root({"a": rsna.NORMAL})
    (root / rsna.IMAGES / "a.dcm").write_text("x")
    with pytest.raises(InputError, match=r"No image could be prepared; the first .* is no image"):
        opened(root, tmp_path)
    assert not (tmp_path / "set").exists()


def test_missing_data_says_what_where_whence_and_the_phantom_command(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXFAIR_DATA", raising=False)
    for root in (None, str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(InputError) as caught:
            dataset.open_dataset(make_data_config(root=root), progress=False)
        sentence = str(caught.value)
        assert all(part in sentence for part in rsna.SPEC["needs"])
        assert root is None or root in sentence
        assert "kaggle.com" in sentence and "configs/rsna_fae.py:phantom" in sentence
        assert "JAXFAIR_DATA" in sentence and "\n" not in sentence


def test_the_variable_names_the_root_and_the_set_lies_beside_it(rsna_root, monkeypatch):
    root = rsna_root(FOUR)
    monkeypatch.setenv("JAXFAIR_DATA", str(root))
    made = dataset.open_dataset(make_data_config(image_size=16), progress=False)
    assert made.folder == root.parent / "jaxfair-prepared" / "root-16px"


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"source": "rsnaa"}, "'rsnaa'.*Did you mean 'rsna'"),
        ({"anomaly": "mass"}, "data.anomaly is 'mass'; it must be one of 'opacity', 'any'"),
        ({"split": "half"}, "data.split is 'half'"),
        ({"protected_attr": "race"}, "data.protected_attr is 'race'"),
        ({"protected_attr_percent": 1.5}, "data.protected_attr_percent is 1.5"),
        ({"image_size": 4}, "data.image_size is 4; it must be 8 to 1024"),
        ({"public_size": 0}, "data.public_size is 0"),
        ({"per_group": 0}, "data.per_group is 0"),
        ({"share_normals": True}, "data.share_normals is True; it must be False unless"),
        ({"phantom": {"n_images": 30}}, "data.phantom is not a field"),
        (
            {"uncertain": "ones"},
            "data.uncertain is an option of data.source 'chexpert'",
        ),
        ({"image_sise": 64}, "data.image_sise is not a field. Did you mean 'image_size'"),
    ],
)
def test_a_config_out_of_range_is_refused_at_the_door(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        make_data_config(**fields)


def test_a_thesis_split_is_marked_coupled_and_test_rows_hold_the_shared_normals(
    small_phantom, tmp_path
):
    fields = {"split": "thesis", "per_group": 1, "share_normals": True}
    made = opened(small_phantom, tmp_path, **fields)
    assert made.selection == "coupled"
    shared = set(made.rows("validation")) & set(made.rows("test"))
    assert len(shared) == 2 and made.card["split_rule"]["share_normals"]


def test_nothing_in_the_room_writes_outside_the_folders_it_is_given(made):
    assert sorted(p.name for p in pathlib.Path(made.folder).iterdir()) == [
        "data_card.json", "jaxfair_images", "manifest.parquet", "pixels.npy", "prepared.json",
        "rejected.csv",
    ]  # fmt: skip


def test_as_a_classification_every_patient_of_rsna_may_train(made, small_phantom):
    fields = {"prepared": str(made.folder), "image_size": 32, "anomaly": "any"}
    table = opened(small_phantom, made.folder, split="random", **fields).manifest
    assert (table.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(table.loc[table["split"] == "train", "label_anomaly"]) == {0.0, 1.0}


def test_the_marker_of_rsna_names_no_option_that_has_its_default(made):
    assert set(json.loads((made.folder / "prepared.json").read_text())) == {
        "data", "decoder", "fingerprint", "format", "image_size", "images", "licence", "phantom",
        "patient_ids_known", "pixels_sha256", "population", "source", "title",
    }  # fmt: skip
