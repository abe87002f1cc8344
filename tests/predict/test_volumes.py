"""Volumes from their files to scores and maps, as their run scored them."""

import nibabel
import numpy as np
import pandas as pd
import pytest

from jaxfair import train
from jaxfair.config import load_config
from jaxfair.export import __main__ as export
from jaxfair.model_file.model import load_model
from jaxfair.predict import scoring
from jaxfair.predict.cases import cases_of
from tests.predict.films import write_series
from tests.predict.volumes import SHAPE, volume_file
from tests.small import CONFIG


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(volume_file(tmp_path_factory.mktemp("model") / "v.jaxfair"))


def ramp(shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / np.prod(shape)


@pytest.mark.parametrize("axes", [("L", "P", "S"), ("R", "A", "S"), ("P", "S", "L")])
def test_a_map_lies_over_its_volume_however_that_is_stored(model, tmp_path, axes):
    """The model's map is the volume itself, so each voxel of it has a twin at the same mm."""
    start = nibabel.orientations.axcodes2ornt(("R", "A", "S"))
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(axes))
    plain = np.array([[1.5, 0, 0, -9], [0, 2, 0, 4], [0, 0, 3, 5], [0, 0, 0, 1.0]])
    values = nibabel.orientations.apply_orientation(ramp((8, 9, 7)), turn)
    affine = plain @ nibabel.orientations.inv_ornt_aff(turn, (8, 9, 7))
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    cases = cases_of([str(tmp_path / "a.nii.gz")], "volume", model.groups)
    session = scoring.run(model, cases, tmp_path / "out", progress=False)
    found = nibabel.load(tmp_path / "out" / session.rows[0]["map"])
    assert found.shape == SHAPE[::-1]
    grid = np.stack(np.meshgrid(*map(np.arange, found.shape), indexing="ij"), -1)
    there = nibabel.affines.apply_affine(np.linalg.inv(affine) @ found.affine, grid)
    assert np.allclose(there, np.round(there), atol=1e-4)
    twins = values[tuple(np.moveaxis(np.round(there).astype(int), -1, 0))]
    np.testing.assert_allclose(found.get_fdata(), (twins + 2) / 4, atol=0.5 / 255 + 1e-6)


def test_a_folder_of_dicom_series_is_a_case_for_each_with_a_parametric_map_alone(model, tmp_path):
    for name in ("one", "two"):
        write_series(tmp_path / "in" / name, ramp((5, 6, 7)) * 3)
    cases = cases_of([str(tmp_path / "in")], "volume", model.groups)
    session = scoring.run(model, cases, tmp_path / "out", dicom=True, progress=False)
    assert [row["image_id"] for row in session.rows] == ["one", "two"]
    places = [row["dicom"] for row in session.rows]
    assert all(place.endswith(".map.dcm") for place in places) and len(set(places)) == 2
    assert {p.name for p in (tmp_path / "out" / "dicom").iterdir()} == {p[6:] for p in places}
    assert all((tmp_path / "out" / row["map"]).is_file() for row in session.rows)


def tiny(name, root, **more):
    """A phantom run of a config of volumes: a few scans, two steps."""
    config = load_config(CONFIG.replace("rsna_fae", name))
    changes = {
        "data.root": str(root),
        "data.volume": (8, 12, 12),
        "data.spacing": (25.0, 28.0, 28.0),
        "data.phantom.n_images": 60,
        "data.phantom.pixels": 32,
        "data.phantom.slices": 16,
        "data.public_size": 40,
        "dp.microbatch": 2,
        "train.steps": 2,
        "train.expected_batch_size": 4,
        "train.checkpoint_every": 2,
    } | more
    with config.unlocked():
        for field, value in changes.items():
            config.update_from_flattened_dict({field: value})
    return config


def _stem(image_id):
    """images/00001_1.nii.gz -> 00001_1"""
    return image_id.split("/")[-1].split(".")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ct_resnet3d", "ct_slices"])
def test_a_run_of_volumes_scores_its_own_files_alike(name, tmp_path):
    """NIfTI files and one of them as a DICOM series: equal to the run's table to 1e-5."""
    config = tiny(name, tmp_path / "phantom")
    train.run(config, tmp_path / "run", num_devices=1, progress=False)
    model = export.run(tmp_path / "run", tmp_path / "m.jaxfair", progress=False)
    drawn = next((tmp_path / "phantom").glob("phantom-*/images"))
    cases = cases_of([str(drawn)], "volume", model.groups)
    session = scoring.run(model, cases, tmp_path / "out", progress=False)
    assert not session.aside and not any(row["map"] for row in session.rows)
    scored = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    theirs = scored.set_index(scored["image_id"].map(_stem))["y_score"]
    rows = pd.DataFrame(session.rows)
    mine = rows.set_index(rows["image_id"].map(_stem))["score"]
    assert len(theirs) > 10 and set(theirs.index) <= set(mine.index)
    apart = (mine[theirs.index] - theirs).to_numpy()
    assert np.abs(apart).max() <= 1e-5
