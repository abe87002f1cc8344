import nibabel
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jaxfair.data import workers
from jaxfair.errors import InputError
from jaxfair.phantom import abdomen, scans, write
from tests.phantom.test_rsna import digests

CONFIG = write.PhantomConfig(n_images=24, pixels=32, slices=16, seed=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    place = tmp_path_factory.mktemp("phantom") / "scans"
    return write.write_phantom(CONFIG, place, source="volumes", progress=False)


def scan(seed=0, *, lesion=True, contrast=1.0, sex="M", age=50, shape=(24, 48, 48)):
    build = abdomen.draw_build(sex, age, rng=np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 1])
    spacing = (200 / shape[0], 360 / shape[1], 360 / shape[2])
    return abdomen.draw_scan(build, lesion, shape, spacing, contrast=contrast, rng=rng)


def test_equal_configs_draw_equal_bytes_whatever_the_number_of_processes(
    root, tmp_path, monkeypatch
):
    monkeypatch.setattr(workers, "FEW", 1)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: {0, 1})
    again = write.write_phantom(CONFIG, tmp_path / "a", source="volumes", progress=False)
    assert digests(again) == digests(root)


def test_the_table_names_every_file_and_has_the_faults_of_real_ones(root):
    rows = pd.read_csv(root / "table.csv")
    assert list(rows) == ["image", "patient", "lesion", "sex", "age"] and len(rows) == 24
    files = {p.relative_to(root).as_posix() for p in root.rglob("*.nii.gz")}
    assert set(rows["image"]) == files and set(rows["lesion"]) == {0, 1}
    assert rows["sex"].isna().sum() == rows["age"].isna().sum() == 1
    assert {0, 155} <= set(rows["age"])


def test_the_files_hold_hounsfield_units_with_the_size_of_a_voxel_and_say_phantom(root):
    zooms = []
    for path in root.rglob("*.nii.gz"):
        image = nibabel.load(path)
        values = np.asarray(image.dataobj)
        assert values.shape == (32, 32, 16) and values.dtype == np.int16
        assert values.min() >= -1024 and values.max() < 500
        assert b"PHANTOM" in image.header["descrip"].item()
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        zooms.append([float(z) for z in image.header.get_zooms()])
    across, along = np.array(zooms)[:, 0], np.array(zooms)[:, 2]
    assert np.allclose(across, np.array(zooms)[:, 1])
    assert len(set(across)) > 5 and len(set(along)) == len(scans.HEIGHTS)
    assert (np.abs(along / across - 1) > 0.05).mean() > 0.5


def test_the_spine_lies_behind_and_the_liver_on_the_patients_right():
    values = np.mean([scan(seed, lesion=False) for seed in range(6)], axis=0)
    bone = np.argwhere(values > 220).mean(axis=0)
    assert bone[1] > 26 and bone[2] == pytest.approx(23.5, abs=2)
    upper = values[16:20, 14:30]
    assert upper[..., 6:14].mean() > upper[..., 34:42].mean() + 40


def test_a_lesion_is_bright_and_only_around_the_pancreas():
    for seed in range(4):
        change = scan(seed).astype(float) - scan(seed, lesion=False)
        where = np.argwhere(np.abs(change) > 1)
        assert change.max() > 80 and change.min() > -60
        assert 30 < len(where) < 1000
        assert np.ptp(where * [200 / 24, 7.5, 7.5], axis=0).max() < 75


def test_the_planted_gap_makes_a_lesion_fainter_in_proportion():
    healthy = scan(1, lesion=False).astype(float)
    strong, faint = ((scan(1, contrast=c) - healthy).sum() for c in (1.0, 0.5))
    assert faint / strong == pytest.approx(0.5, abs=0.02)


def test_only_scans_of_the_gap_group_with_a_lesion_change_with_its_contrast(root, tmp_path):
    config = write.PhantomConfig(n_images=24, pixels=32, slices=16, seed=3, gap_contrast=1.0)
    other = digests(write.write_phantom(config, tmp_path / "a", source="volumes", progress=False))
    table = scans.draw_table(config)
    fainter = table[(table["sex"] == "F") & table["lesion"]]
    before = digests(root)
    changed = {name for name in other if name.endswith(".gz") and other[name] != before[name]}
    assert changed == set(fainter["image"]) and changed


def test_a_person_keeps_sex_and_lesion_and_few_are_scanned_twice():
    table = scans.draw_table(write.PhantomConfig(n_images=500))
    assert len(table) == 500 and table["image"].is_unique
    assert (table.groupby("patient")[["sex", "lesion"]].nunique() == 1).all().all()
    assert 0.03 < (table.groupby("patient").size() == 2).mean() < 0.2
    assert table["lesion"].mean() == pytest.approx(scans.LESION_SHARE, abs=0.05)


def test_a_lesion_is_seen_by_a_linear_model_of_the_middle():
    n = 160
    ill = np.random.default_rng(0).random(n) < 0.5
    scans = [scan(i, lesion=bool(ill[i]), shape=(20, 40, 40)) for i in range(n)]
    x = np.stack([np.clip(s[4:16, 12:24, 12:30], -160, 240).ravel() for s in scans]) / 400
    x = x.astype(float) - x.mean(axis=0)
    model = LogisticRegression(C=0.1).fit(x[: n // 2], ill[: n // 2])
    assert roc_auc_score(ill[n // 2 :], model.decision_function(x[n // 2 :])) > 0.7


def test_a_gap_in_a_view_is_refused_for_volumes(tmp_path):
    config = write.PhantomConfig(n_images=20, gap_group="AP")
    with pytest.raises(InputError, match="gap_group is 'AP', and volumes have no view"):
        write.write_phantom(config, tmp_path / "a", source="volumes", progress=False)
    assert not (tmp_path / "a").exists()


def test_names_of_volumes_differ_with_the_number_of_slices():
    names = {write.PhantomConfig(slices=n).folder_name("volumes") for n in (16, 32)}
    assert len(names) == 2
    assert len({write.PhantomConfig(slices=n).folder_name("rsna") for n in (16, 32)}) == 1
