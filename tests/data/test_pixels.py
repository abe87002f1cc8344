import numpy as np
import pytest
from PIL import Image
from skimage import exposure

from jaxfair.data import dataset, greys, pixels
from jaxfair.data.config import make_data_config
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError


def read(path, side=8, **fields):
    image, header = pixels.read_square(pixels.Job(str(path), Stored(image_size=side, **fields)))
    assert image is not None, header["reason"]
    return image[..., 0]


@pytest.fixture
def wide(tmp_path):
    """A PNG of 16 x 32: left half dark, right half bright."""
    picture = np.repeat(np.array([[40] * 16 + [200] * 16], np.uint8), 16, 0)
    Image.fromarray(picture).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_crop_cuts_pad_surrounds_and_stretch_squeezes(wide):
    assert (read(wide)[:, [3, 4]] == [40, 200]).all()
    padded = read(wide, resize="pad")
    assert not padded[:2].any() and not padded[-2:].any() and (padded[2:6, 0] == 40).all()
    stretched = read(wide, resize="stretch")
    np.testing.assert_array_equal(stretched, np.repeat([[40] * 4 + [200] * 4], 8, 0))


def test_equalisation_reaches_black_and_white_and_flattens_the_histogram():
    rng = np.random.default_rng(0)
    film = rng.normal(0.4, 0.05, (64, 64))
    levels = pixels.equalized(film)
    assert (levels.min(), levels.max()) == (0, 255)
    counts = np.histogram(levels, 8, (0, 256))[0]
    assert counts.max() < 1.2 * counts.min()
    theirs = exposure.equalize_hist(film, nbins=256)
    assert np.abs(levels / 255 - theirs).max() < 0.03


def test_equalisation_keeps_the_order_of_greys():
    film = np.random.default_rng(1).random((16, 16)) ** 3
    levels = pixels.equalized(film)
    order = np.argsort(film.ravel())
    assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()


def test_both_options_are_another_prepared_set_and_folder(tmp_path, rsna_root):
    root = rsna_root({"a": "Normal", "b": "Normal"})
    plain = dataset.prepare(make_data_config(root=str(root), image_size=16), progress=False)
    other = make_data_config(root=str(root), image_size=16, resize="stretch", equalize=True)
    assert dataset.prepare(other, progress=False) != plain
    assert plain.name == "root-16px"
    with pytest.raises(InputError, match=r"prepared with resize None, and 'stretch' is asked"):
        dataset.prepare(
            make_data_config(root=str(root), image_size=16, resize="stretch",
                               prepared=str(plain)), progress=False)  # fmt: skip


def test_a_set_prepared_by_another_rule_for_pixels_is_refused(rsna_root, monkeypatch):
    config = make_data_config(root=str(rsna_root({"a": "Normal", "b": "Normal"})), image_size=16)
    dataset.prepare(config, progress=False)
    monkeypatch.setattr(greys, "RULE", greys.RULE + 1)
    with pytest.raises(InputError, match=r"prepared with decoder 2, and 3 is asked for; delete"):
        dataset.prepare(config, progress=False)


@pytest.mark.parametrize(
    "dtype, top, expected", [(np.uint8, 255, 1.0), (np.uint16, 4095, 1.0), (np.uint16, 5000, 0.61)]
)
def test_integers_map_by_whole_bits(tmp_path, dtype, top, expected):
    picture = np.linspace(0, top, 64).reshape(8, 8).astype(dtype)
    Image.fromarray(picture).save(tmp_path / "a.png")
    found, header = pixels.read_picture(tmp_path / "a.png")
    assert found.max() == pytest.approx(expected, abs=0.01)
    assert header["bits"] == 8 * np.dtype(dtype).itemsize and header["syntax"] == "PNG"


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:, 6:] = 255
    exif = Image.Exif()
    exif[274] = 6  # rotate by 90 degrees to the right
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    found, _ = pixels.read_picture(tmp_path / "a.png", channels=3)
    assert found.shape == (12, 8, 3) and found[0].max() == 0 and found[-1].min() == 1


@pytest.mark.parametrize(
    "array, sentence",
    [
        (np.linspace(0, 2, 16).reshape(4, 4), "floating-point values that are not all in"),
        (np.array([[0, np.nan], [0.5, 1]]), "floating-point values that are not all in"),
        (np.array([[0, np.inf], [0.5, 1]]), "floating-point values that are not all in"),
        (np.zeros((0, 4)), "holds no pixels"),
        (np.zeros((2, 3, 4, 5), np.uint8), r"shape \(2, 3, 4, 5\); an image is"),
        (np.array([["a"]]), "values of the type <U1"),
    ],
)
def test_arrays_that_are_no_image_are_refused(tmp_path, array, sentence):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=sentence):
        pixels.read_picture(tmp_path / "a.npy")


@pytest.mark.parametrize("flipped", [0x14, 0x80])
def test_an_archive_with_a_flipped_byte_is_read_or_set_aside(tmp_path, flipped):
    np.savez_compressed(tmp_path / "a.npz", np.arange(64, dtype=np.uint8).reshape(8, 8))
    content, refused = (tmp_path / "a.npz").read_bytes(), 0
    for place in range(0, len(content), 2):
        broken = bytearray(content)
        broken[place] ^= flipped
        (tmp_path / f"{place}.npz").write_bytes(broken)
        image, header = pixels.read_square(
            pixels.Job(str(tmp_path / f"{place}.npz"), Stored(image_size=8))
        )
        assert image is not None or f"{place}.npz " in header["reason"]
        refused += image is None
    assert refused > 50


def test_several_arrays_in_one_file_are_not_guessed_among(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.zeros((4, 4)), two=np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"holds the arrays one, two; exactly one may have images"):
        pixels.read_picture(tmp_path / "a.npz")


def test_what_begins_like_no_image_is_refused_whatever_its_name(tmp_path):
    for name, content in (("a.png", b"BM no image"), ("b.dcm", b""), ("._c.png", b"\0\x05\x16\7")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=r"no image \(DICOM, PNG, JPEG, npy or npz"):
            pixels.read_picture(tmp_path / name)
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        pixels.read_picture(tmp_path / "gone.png")


def test_colour_is_not_asked_of_dicom(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.uint8).reshape(8, 8))
    with pytest.raises(InputError, match=r"DICOM, which is read as grey"):
        pixels.read_picture(path, channels=3)
