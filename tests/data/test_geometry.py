"""How a volume lies: whichever way it was taken or saved, head, back and left come out."""

import itertools

import nibabel
import numpy as np
import pytest

from jaxfair.data import volume
from jaxfair.data.pixels import Job
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

SHAPE, SPACING = (4, 5, 6), (3.0, 1.5, 1.0)  # head, back, left
TURNS = [  # (axis, sign) of the patient along rows and along columns; axes are left, back, head
    (row, column)
    for row, column in itertools.product(itertools.product(range(3), (1, -1)), repeat=2)
    if row[0] != column[0]
]


def values_at(places):
    """A linear function of places (..., 3) in mm to left, back and head."""
    return places @ np.array([10.0, 20.0, 30.0])


def grid():
    """(d, h, w, 3) places of the volume's voxels in mm to left, back and head."""
    d, h, w = (np.arange(n) * s for n, s in zip(SHAPE, SPACING))
    return np.stack(np.meshgrid(d, h, w, indexing="ij"), -1)[..., ::-1]


EXPECTED = values_at(grid())


@pytest.fixture
def write_series(tmp_path, write_dicom):
    """write_series(directions, sizes, counts, start) writes slices of `values_at`."""

    def write(directions, sizes, counts, start=(0, 0, 0), *, step=None, **elements):
        """Directions of rows, columns and slices in mm to left, back, head; files in no order."""
        folder = tmp_path / "series"
        folder.mkdir()
        row, column, across = np.asarray(directions, float)
        step = across * sizes[2] if step is None else np.asarray(step, float)
        for k in range(counts[2]):
            at = np.asarray(start) + k * step
            j, i = np.meshgrid(np.arange(counts[1]), np.arange(counts[0]), indexing="ij")
            places = at + i[..., None] * sizes[0] * row + j[..., None] * sizes[1] * column
            about = {
                "ImagePositionPatient": [float(v) for v in np.round(at, 6)],
                "ImageOrientationPatient": [float(v) for v in np.round([*row, *column], 8)],
                "PixelSpacing": [sizes[1], sizes[0]],
                "RescaleIntercept": -1000,
                "RescaleSlope": 0.25,
            }
            for name, change in elements.items():
                about[name] = change(k, about.get(name)) if callable(change) else change
            pixels = np.round(4 * (values_at(places) + 1000)).astype(np.uint16)
            write_dicom(folder / f"{(7 * k) % 11}-{k}", pixels, **about)
        return folder

    return write


def taken(row, column):
    """Directions, sizes, counts and start of a series along the patient's axes."""
    axes = [row, column, ({0, 1, 2} - {row[0], column[0]}).pop()]
    axes[2] = (axes[2], 1)
    sizes = [SPACING[2 - axis] for axis, _ in axes]
    counts = [SHAPE[2 - axis] for axis, _ in axes]
    start = np.zeros(3)
    directions = np.zeros((3, 3))
    for i, (axis, sign) in enumerate(axes):
        directions[i, axis] = sign
        start[axis] = 0 if sign > 0 else (counts[i] - 1) * sizes[i]
    return directions, sizes, counts, start


@pytest.mark.parametrize("row, column", TURNS)
def test_a_series_of_any_orientation_runs_to_head_back_and_left(write_series, row, column):
    values, spacing, header = volume.read_values(write_series(*taken(row, column)))
    np.testing.assert_allclose(values, EXPECTED, atol=0.13)  # the slope's step is 0.25
    np.testing.assert_allclose(spacing, SPACING)
    assert header["remarks"] == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_nifti_of_any_orientation_is_the_same_volume(tmp_path, order, signs):
    affine = np.zeros((4, 4))
    places = np.moveaxis(grid(), (0, 1, 2), (2, 1, 0))  # axes run to left, back, head
    for i, axis in enumerate(order):
        affine[axis, i] = SPACING[2 - axis] * signs[i]
    data = np.transpose(values_at(places), order)[:: signs[0], :: signs[1], :: signs[2]]
    write_nifti(tmp_path / "a", data, np.diag([-1, -1, 1, 1]) @ affine)
    values, spacing, _ = volume.read_values(tmp_path / "a")
    np.testing.assert_allclose(values, EXPECTED)
    np.testing.assert_allclose(spacing, SPACING)


def write_nifti(path, data, affine, unit="mm", code=1):
    """Writes a NIfTI file under any name."""
    content = nibabel.Nifti1Image(np.ascontiguousarray(data, np.float32), np.eye(4)).to_bytes()
    header = nibabel.Nifti1Header(content[:348])
    header.set_xyzt_units(unit)
    header["sform_code"], header["qform_code"] = code, 0
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    path.write_bytes(header.binaryblock + content[348:])


def slopes(values, spacing):
    """Growth per mm along head, back and left in the middle of the volume."""
    middle = tuple(slice(n // 3, n - n // 3) for n in values.shape)
    return [float(np.median(np.diff(values, axis=a)[middle])) / spacing[a] for a in range(3)]


def turned(degrees):
    """Directions of an axial series turned about the axis from right to left."""
    angle = np.deg2rad(degrees)
    column = np.array([0, np.cos(angle), np.sin(angle)])
    return [1, 0, 0], column, np.cross([1, 0, 0], column)


def test_a_tilted_gantry_is_straightened(write_series):
    """The slices are axial but each lies half a mm further back than the one below."""
    folder = write_series(np.eye(3), (1, 1, 2), (12, 14, 10), step=[0, 0.5, 2.0])
    values, spacing, header = volume.read_values(folder)
    np.testing.assert_allclose(slopes(values, spacing), [30, 20, 10], rtol=0.02)
    assert header["remarks"] == ["lay askew: resampled to the axes of the patient"]


def test_a_volume_far_from_the_patients_axes_is_resampled_to_them(write_series):
    folder = write_series(turned(35), (1, 1, 1), (10, 16, 16), start=(0, 20, 0))
    values, spacing, header = volume.read_values(folder)
    np.testing.assert_allclose(slopes(values, spacing), [30, 20, 10], rtol=0.02)
    assert "resampled" in header["remarks"][0]


def test_a_slightly_oblique_volume_keeps_its_voxels_and_says_so(write_series):
    folder = write_series(turned(8), (1, 1, 1), (6, 5, 4))
    values, spacing, header = volume.read_values(folder)
    assert values.shape == (4, 5, 6) and "nearest axes are used" in header["remarks"][0]
    np.testing.assert_allclose(spacing, (1, 1, 1), atol=1e-6)


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (
            {"ImageOrientationPatient": lambda k, v: [0, 1, 0, 1, 0, 0] if k == 2 else v},
            "slices of several orientations",
        ),
        (
            {"ImageOrientationPatient": lambda k, v: [1, 0, 0, 0, 0.98, 0.2] if k == 2 else v},
            "slices of several orientations",
        ),
        ({"PixelSpacing": lambda k, v: [2, 2] if k == 2 else v}, "slices of several pixel sizes"),
        (
            {"ImagePositionPatient": lambda k, v: [v[0] + 5 * (k == 2), *v[1:]]},
            "do not lie in one line",
        ),
        ({"ImagePositionPatient": lambda k, v: [*v[:2], k**1.2]}, "not evenly spaced"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "which cannot be"),
        ({"PixelSpacing": [0, 1]}, "which cannot be"),
        ({"PixelSpacing": None}, "does not say where it lies"),
        ({"ImagePositionPatient": lambda k, v: v[:2]}, "no ImagePositionPatient of 3 numbers"),
    ],
)
def test_a_series_without_one_geometry_is_refused(write_series, changed, sentence):
    folder = write_series(*taken((0, 1), (1, 1)), **changed)
    with pytest.raises(InputError, match=sentence):
        volume.read_values(folder)


AFFINE = np.diag([-1.0, -1.5, 3.0, 1.0])
DATA = EXPECTED.T


@pytest.mark.parametrize("unit, factor", [("mm", 1), ("meter", 1000), ("micron", 0.001)])
def test_the_unit_of_a_nifti_file_is_honoured(tmp_path, unit, factor):
    write_nifti(tmp_path / "a.nii", DATA, AFFINE / factor, unit)
    values, spacing, header = volume.read_values(tmp_path / "a.nii")
    np.testing.assert_allclose(spacing, SPACING, rtol=1e-6)
    np.testing.assert_allclose(values, EXPECTED)
    assert header["remarks"] == []


def test_a_nifti_file_that_names_no_unit_is_read_as_mm_and_says_so(tmp_path):
    write_nifti(tmp_path / "a.nii", DATA, AFFINE, "unknown")
    _, spacing, header = volume.read_values(tmp_path / "a.nii")
    assert spacing == SPACING and "unit of its voxels is not said" in header["remarks"][0]


def test_a_nifti_file_that_does_not_say_how_it_lies_is_refused_with_the_cure(tmp_path):
    write_nifti(tmp_path / "a.nii", DATA, AFFINE, code=0)
    with pytest.raises(InputError, match=r"does not say how it lies .*set_sform\(affine, 1\)"):
        volume.read_values(tmp_path / "a.nii")


@pytest.mark.parametrize(
    "affine, sentence",
    [
        (np.diag([np.nan, 1, 1, 1]), "its geometry is not finite"),
        (np.diag([np.inf, 1, 1, 1]), "its geometry is not finite"),
        (np.diag([0.0, 1, 1, 1]), "its axes lie in one plane"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "in one plane"),
    ],
)
def test_an_affine_that_is_none_is_refused(tmp_path, affine, sentence):
    write_nifti(tmp_path / "a.nii", DATA, affine)
    with pytest.raises(InputError, match=sentence):
        volume.read_values(tmp_path / "a.nii")


def stored(path, **fields):
    how = Stored(volume=SHAPE, window=(0.0, 500.0), **fields)
    return volume.read_volume(Job(str(path), how))


def test_volumes_that_would_be_huge_or_nothing_are_refused_before_memory_is_taken(tmp_path):
    write_nifti(tmp_path / "big.nii", DATA, np.diag([-1e9, -1, 1, 1]))
    write_nifti(tmp_path / "small.nii", DATA, np.diag([-0.001, -0.001, 0.001, 1]))
    write_nifti(
        tmp_path / "askew.nii",
        DATA,
        np.diag([-1e8, -1, 1, 1]) + np.outer([0, 3e7, 0, 0], [1, 0, 0, 0]),
    )
    header = nibabel.Nifti1Header()
    header.set_data_shape((4000, 4000, 4000))
    header.set_sform(np.eye(4), 1)
    (tmp_path / "claim.nii").write_bytes(header.binaryblock + bytes(100))
    for name, reason in {
        "big.nii": "resampled to data.spacing, declares 4 x 5 x 6000000000 values",
        "small.nii": "less than one voxel of data.spacing",
        "askew.nii": "resampled to the axes of the patient, it declares",
        "claim.nii": "declares 4000 x 4000 x 4000 values",
    }.items():
        image, header = stored(tmp_path / name, spacing=(1.0, 1.0, 1.0))
        assert image is None and reason in header["reason"], name


@pytest.mark.parametrize("shape", [(4, 5, 6), (3, 3, 8), (7, 3, 5)])
@pytest.mark.parametrize("spacing", [None, (3.0, 0.75, 2.0)])
@pytest.mark.parametrize("flip", [(-1, -1, 1), (1, -1, -1), (-1, 1, 1)])
def test_what_is_stored_says_where_it_lies(tmp_path, flip, spacing, shape):
    """The value at a stored voxel's place in mm is that of the source, whatever was done to it."""
    affine = np.diag([*np.multiply(flip, (1.0, 1.5, 3.0)), 1.0])
    affine[:3, 3] = 7, -11, 13
    i, j, k = np.meshgrid(*map(np.arange, (6, 10, 8)), indexing="ij")
    at = lambda places: places @ np.array([3.0, 5.0, 7.0]) + 200
    values = at(np.stack([i, j, k], -1) @ affine[:3, :3].T + affine[:3, 3])
    write_nifti(tmp_path / "a.nii", values.astype(np.float32), affine)
    how = Stored(volume=shape, spacing=spacing, window=(0.0, 500.0))
    pixels, header = volume.read_volume(Job(str(tmp_path / "a.nii"), how))
    d, h, w = np.meshgrid(*map(np.arange, shape), indexing="ij")
    there = np.stack([w, h, d, np.ones(shape)], -1) @ header["affine"].T
    inside = pixels[..., 0] > 0  # bars round it are black
    edge = 1 if spacing else 0  # linear interpolation is flat beyond the last middles
    inner = np.zeros(shape, bool)
    inner[tuple(slice(edge, n - edge) for n in shape)] = True
    seen = inside & inner
    assert seen.any()
    expected = np.clip(at(there[..., :3]) / 500, 0, 1) * 255
    np.testing.assert_allclose(pixels[..., 0][seen], expected[seen], atol=0.51)
