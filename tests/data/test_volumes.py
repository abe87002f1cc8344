import gzip

import nibabel
import numpy as np
import pandas as pd
import pytest

from jaxfair.data import dataset, volume
from jaxfair.data.config import make_data_config
from jaxfair.data.pixels import Job
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

SHAPE = (10, 12, 14)
WINDOW = {"window": (-100.0, 900.0)}


def ramp(shape=SHAPE):
    """Values that grow along each axis, differently."""
    d, h, w = (np.arange(n, dtype=np.float32) for n in shape)
    return 100 * d[:, None, None] + 10 * h[:, None] + w - 100


def write_nifti(path, values, spacing=(3.0, 1.5, 1.0), flip=(-1, -1, 1)):
    affine = np.diag([*(np.array(flip) * spacing[::-1]), 1.0])
    data = values.T[:: -flip[0], :: -flip[1], :: flip[2]].astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(data), affine), path)


def stored(path, shape=SHAPE, **fields):
    return volume.read_volume(Job(str(path), Stored(volume=shape, **WINDOW | fields)))


@pytest.mark.parametrize("flip", [(-1, -1, 1), (1, -1, 1), (-1, 1, -1), (1, 1, -1)])
def test_nifti_axes_run_to_head_back_and_left_however_they_are_stored(tmp_path, flip):
    write_nifti(tmp_path / "a.nii.gz", ramp(), flip=flip)
    values, spacing, _ = volume.read_values(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(values, ramp())
    np.testing.assert_allclose(spacing, (3.0, 1.5, 1.0))


def test_the_window_maps_to_black_and_white(tmp_path):
    np.save(tmp_path / "a.npy", ramp())
    pixels, _ = stored(tmp_path / "a.npy")
    expected = np.round(255 * np.clip((ramp() + 100) / 1000, 0, 1))
    np.testing.assert_array_equal(pixels[..., 0], expected)
    assert pixels.dtype == np.uint8


def test_cropping_keeps_the_middle_and_padding_surrounds_it(tmp_path):
    np.save(tmp_path / "a.npy", ramp())
    whole, _ = stored(tmp_path / "a.npy")
    other, _ = stored(tmp_path / "a.npy", (6, 16, 14))
    np.testing.assert_array_equal(other[:, 2:14], whole[2:8])
    assert not other[:, :2].any() and not other[:, 14:].any()


def test_resampling_keeps_the_mean_when_it_shrinks_and_a_ramp_when_it_grows():
    values = np.random.default_rng(0).random((6, 9, 12)).astype(np.float32)
    small = volume.resampled(values, (2, 2, 2), (4, 6, 8))
    assert small.shape == (3, 3, 3)
    np.testing.assert_allclose(small.mean(), values.mean(), atol=1e-6)
    line = np.arange(8.0, dtype=np.float32).reshape(1, 1, 8)
    fine = volume.resampled(line, (1, 1, 1), (1, 1, 0.5))[0, 0]
    np.testing.assert_allclose(fine[1:-1], np.arange(0.25, 7, 0.5), atol=1e-6)


def test_volumes_of_any_spacing_come_to_the_same_size(tmp_path):
    write_nifti(tmp_path / "thick.nii", ramp((5, 12, 14)), spacing=(6.0, 1.5, 1.0))
    thick, _ = stored(tmp_path / "thick.nii", (10, 9, 7), spacing=(3.0, 2.0, 2.0))
    values, spacing, _ = volume.read_values(tmp_path / "thick.nii")
    assert thick.shape == (10, 9, 7, 1)
    assert volume.resampled(values, spacing, (3.0, 2.0, 2.0)).shape == (10, 9, 7)


def test_an_array_says_its_spacing_or_is_not_resampled(tmp_path):
    np.save(tmp_path / "a.npy", ramp())
    np.savez(tmp_path / "a.npz", volume=ramp(), spacing=[2.0, 1.0, 1.0])
    nothing, header = stored(tmp_path / "a.npy", spacing=(1, 1, 1))
    assert nothing is None and "a.npy does not say the size of its voxels" in header["reason"]
    assert stored(tmp_path / "a.npz", (20, 12, 14), spacing=(1, 1, 1))[0][0].any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.0, -1.0])
def test_a_spacing_that_is_none_is_refused(tmp_path, wrong):
    np.savez(tmp_path / "a.npz", volume=ramp(), spacing=[2.0, wrong, 1.0])
    nothing, header = stored(tmp_path / "a.npz")
    assert nothing is None and "a.npz has the spacing" in header["reason"]


@pytest.mark.parametrize("name", ["A.NII.GZ", "a.nii", "a", "1.2.840.1"])
def test_a_nifti_file_is_read_whatever_its_name(tmp_path, name):
    write_nifti(tmp_path / "a.nii.gz", ramp())
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").unlink()
    (tmp_path / name).write_bytes(gzip.decompress(content) if name == "a.nii" else content)
    np.testing.assert_array_equal(volume.read_values(tmp_path / name)[0], ramp())


@pytest.mark.parametrize(
    "write, reason",
    [
        (lambda p: np.save(p, np.zeros((4, 5))), r"array of the shape \(4, 5\); a volume is"),
        (lambda p: np.save(p, np.zeros((2, 4, 5, 6))), r"shape \(2, 4, 5, 6\); a volume is"),
        (lambda p: np.save(p, np.full(SHAPE, np.nan)), "values that are not finite"),
        (lambda p: np.save(p, np.zeros(SHAPE)), "shows nothing between -100 and 900"),
        (lambda p: p.write_bytes(b"none"), "a.npy is no volume"),
    ],
)
def test_a_volume_of_another_shape_or_unreadable_is_a_reason(tmp_path, write, reason):
    write(tmp_path / "a.npy")
    nothing, header = stored(tmp_path / "a.npy")
    assert nothing is None
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(header["reason"])


def test_a_broken_nifti_file_and_an_unknown_suffix_are_reasons(tmp_path):
    for name, reason in (("a.nii.gz", "a.nii.gz is no volume"), ("a.mha", "a.mha is no volume")):
        (tmp_path / name).write_bytes(b"none")
        nothing, header = stored(tmp_path / name)
        assert nothing is None and reason in header["reason"]


@pytest.fixture
def root(tmp_path, series):
    place = tmp_path / "root"
    place.mkdir()
    rng = np.random.default_rng(0)
    names = []
    for i in range(8):
        names.append(f"{i}.nii.gz")
        values = ramp() + rng.integers(0, 50, SHAPE)
        write_nifti(place / names[-1], values)
    series("slices", RescaleIntercept=0).rename(place / "slices")
    np.save(place / "flat.npy", np.zeros((4, 4), np.float32))
    names += ["slices", "flat.npy", "gone.nii.gz"]
    table = pd.DataFrame({"image": names, "patient": [f"p{i // 2}" for i in range(11)]})
    table["lesion"] = [0, 1] * 5 + [0]
    table.to_csv(place / "table.csv", index=False)
    return place


def config(root, **fields):
    about = {"file": "table.csv", "image": "image", "patient": "patient", "labels": ("lesion",)}
    fields = {"volume": (8, 8, 8), "spacing": (3.0, 2.0, 2.0), **WINDOW} | fields
    return make_data_config(
        source="volumes", root=str(root), prepared=str(root.parent / "set"), table=about, **fields
    )


def test_a_table_of_volumes_becomes_a_dataset(root):
    made = dataset.open_dataset(config(root), progress=False)
    assert len(made) == 9 and made.spec["image"].shape == (8, 8, 8, 1) == made.images([0])[0].shape
    rejected = pd.read_csv(made.folder / "rejected.csv").set_index("image_id")["reason"]
    assert rejected["gone.nii.gz"] == "row without a file"
    assert "(4, 4); a volume is" in rejected["flat.npy"]
    assert (made.manifest.groupby("patient_id")["split"].nunique() == 1).all()
    sexes = made.manifest.set_index("image_id")["sex"]
    assert sexes["slices"] == "M" and sexes["0.nii.gz"] == "unknown"
    again = dataset.open_dataset(config(root), progress=False)
    assert again.digest == made.digest


def test_other_options_of_volumes_are_another_prepared_set(root):
    dataset.open_dataset(config(root), progress=False)
    with pytest.raises(InputError, match=r"prepared with volume \[8, 8, 8\], and \[4, 8, 8\]"):
        dataset.open_dataset(config(root, volume=(4, 8, 8)), progress=False)


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"volume": None, "spacing": None}, "'volumes' needs data.volume"),
        ({"volume": (8, 8)}, "data.volume is .8, 8.; it must be three numbers"),
        ({"spacing": (1.0, 0.0, 1.0)}, "data.spacing is .*three sizes in mm above 0"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "data.spacing is .*three sizes in mm above 0"),
        ({"spacing": (1.0, float("inf"), 1.0)}, "data.spacing is .*three sizes in mm above 0"),
        ({"window": (0.0, float("inf"))}, "data.window is .*two numbers"),
        ({"window": (float("nan"), 1.0)}, "data.window is .*two numbers"),
        ({"window": (5.0, 5.0)}, "data.window is .*the lower one first"),
        ({"resize": "stretch"}, "data.resize is 'stretch'"),
    ],
)
def test_options_that_make_no_volume_are_refused_at_the_door(root, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        config(root, **fields)


def test_films_take_no_options_of_volumes():
    with pytest.raises(InputError, match=r"'rsna' takes no data.volume"):
        make_data_config(volume=(8, 8, 8))
    with pytest.raises(InputError, match=r"data.spacing is .* left out for images"):
        make_data_config(spacing=(1.0, 1.0, 1.0))
