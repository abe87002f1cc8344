"""One ramp in every container that is read: the picture must not depend on the container."""

import hashlib
import io

import numpy as np
import png
import pydicom
import pytest
from PIL import Image

from jaxfair.data import greys, pixels
from jaxfair.data.stored import Stored

SIDE = 64
RAMP = np.linspace(0, 4095, SIDE * SIDE).round().astype(np.uint16).reshape(SIDE, SIDE)
EIGHT = np.round(RAMP / 4095 * 255).astype(np.uint8)
SIXTEEN = np.round(RAMP / 4095 * 65535).astype(np.uint16)
COLOUR = np.repeat(EIGHT[..., None], 3, -1)
OPAQUE = np.full((SIDE, SIDE, 1), 255, np.uint8)


def raster(array, kind="PNG", mode=None, **options):
    """Bytes of a PNG or JPEG that Pillow writes."""
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def wide_png(array, *, bits=16, **options):
    """Bytes of a PNG of 16 bits, whose channels are those of the array."""
    planes = 1 if array.ndim == 2 else array.shape[-1]
    buffer = io.BytesIO()
    about = {"greyscale": planes < 3, "alpha": planes in (2, 4), "bitdepth": bits} | options
    png.Writer(SIDE, SIDE, **about).write(buffer, array.reshape(SIDE, -1).tolist())
    return buffer.getvalue()


def palette_png():
    image = Image.fromarray(255 - EIGHT, "P")
    image.putpalette([255 - i // 3 for i in range(768)])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def numpy_bytes(array, **arrays):
    buffer = io.BytesIO()
    np.savez(buffer, array, **arrays) if arrays else np.save(buffer, array)
    return buffer.getvalue()


def channels(array, *more):
    return np.concatenate([array[..., None]] * 3 + [m.reshape(SIDE, SIDE, -1) for m in more], -1)


RASTERS = {
    "PNG grey 8": lambda: raster(EIGHT),
    "PNG grey 16, 12 bits used": lambda: raster(RAMP),
    "PNG grey 16, 16 bits used": lambda: raster(SIXTEEN),
    "PNG grey and alpha 8": lambda: raster(np.concatenate([EIGHT[..., None], OPAQUE], -1)),
    "PNG grey and alpha 16": lambda: wide_png(np.stack([RAMP, np.full_like(RAMP, 65535)], -1)),
    "PNG grey 16, one transparent value": lambda: wide_png(RAMP, transparent=60000),
    "PNG RGB 8": lambda: raster(COLOUR),
    "PNG RGBA 8": lambda: raster(np.concatenate([COLOUR, OPAQUE], -1)),
    "PNG RGB 16, 12 bits used": lambda: wide_png(channels(RAMP)),
    "PNG RGB 16, 16 bits used": lambda: wide_png(channels(SIXTEEN)),
    "PNG RGBA 16": lambda: wide_png(channels(RAMP, np.full_like(RAMP, 65535))),
    "PNG palette": palette_png,
    "JPEG grey": lambda: raster(EIGHT, "JPEG", quality=100),
    "JPEG RGB": lambda: raster(COLOUR, "JPEG", quality=100),
    "JPEG CMYK": lambda: raster(COLOUR, "JPEG", "CMYK", quality=100),
    "npy uint8": lambda: numpy_bytes(EIGHT),
    "npy uint16": lambda: numpy_bytes(RAMP),
    "npy int16": lambda: numpy_bytes(RAMP.astype(np.int16)),
    "npy int16, black below 0": lambda: numpy_bytes((RAMP.astype(int) - 2048).astype(np.int16)),
    "npy int8, black below 0": lambda: numpy_bytes((EIGHT.astype(int) - 128).astype(np.int8)),
    "npy int16 of 8 bits, black below 0": lambda: numpy_bytes(EIGHT.astype(np.int16) - 128),
    "npy int64": lambda: numpy_bytes(RAMP.astype(np.int64)),
    "npy big-endian": lambda: numpy_bytes(RAMP.astype(">u2")),
    "npy float": lambda: numpy_bytes(RAMP / 4095),
    "npy float16": lambda: numpy_bytes((RAMP / 4095).astype(np.float16)),
    "npy (h, w, 1)": lambda: numpy_bytes(RAMP[..., None]),
    "npy (h, w, 3)": lambda: numpy_bytes(channels(RAMP)),
    "npz with a spacing": lambda: numpy_bytes(RAMP, spacing=[1.0, 1.0]),
}


def table_of(values, bits=16, first=0):
    """The sequence of a look-up table."""
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(values) % 2**16, first, bits])
    item.add_new("LUTData", "OW", np.asarray(values, "<u2").tobytes())
    return pydicom.Sequence([item])


def no_table():
    """The sequence of a table that is there by name only."""
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", None)
    item.add_new("LUTData", "OW", b"")
    return pydicom.Sequence([item])


def palette(entries, bits):
    kind = "<u2" if bits == 16 else np.uint8
    names = [f"{c}PaletteColorLookupTable" for c in ("Red", "Green", "Blue")]
    made = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in names:
        made[f"{name}Descriptor"] = [len(entries) % 2**16, 0, bits]
        made[f"{name}Data"] = np.asarray(entries, kind).tobytes()
    return made


def with_value(value, share=0.004):
    """The ramp with `share` of its pixels, evenly spread, at another value."""
    changed = RAMP.copy().ravel()
    changed[:: round(1 / share)] = value
    return changed.reshape(SIDE, SIDE)


SIGNED = (RAMP.astype(int) - 2048).astype(np.int16)
RGB = {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "PlanarConfiguration": 0}
IDENTITY = np.arange(4096)
DICOMS = {
    "8 bits": (EIGHT, {}),
    "10 bits in 16": (RAMP // 4, {"bits": 10}),
    "12 bits in 16": (RAMP, {"bits": 12}),
    "12 bits declared as 16": (RAMP, {}),
    "16 bits": (SIXTEEN, {}),
    "12 bits, signed": (SIGNED, {"bits": 12}),
    "12 bits declared as 16, signed": (SIGNED, {}),
    "16 bits, signed, with a little noise below 0": ((RAMP.astype(int) - 40).astype(np.int16), {}),
    "8 bits, signed": ((EIGHT.astype(int) - 128).astype(np.int8), {}),
    "32 bits": (RAMP.astype(np.uint32), {}),
    "MONOCHROME1": (4095 - RAMP, {"bits": 12, "PhotometricInterpretation": "MONOCHROME1"}),
    "RGB 8": (COLOUR, RGB),
    "RGB 12 in 16": (channels(RAMP), RGB | {"bits": 12}),
    "RGB 12 declared as 16": (channels(RAMP), RGB),
    "palette of 8 bits": (255 - EIGHT, palette(np.arange(255, -1, -1), 8)),
    "palette of 16 bits": (EIGHT, palette(np.arange(256) * 257, 16)),
    "palette of 16 bits, 12 used": (RAMP, palette(IDENTITY, 16)),
    "window": (RAMP, {"WindowCenter": 2048, "WindowWidth": 4096}),
    "window exact": (
        RAMP,
        {"WindowCenter": 2047.5, "WindowWidth": 4095, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "two windows, the first of no width": (
        RAMP,
        {"WindowCenter": [0, 2048], "WindowWidth": [0, 4096]},
    ),
    "window 0/0": (RAMP, {"WindowCenter": 0, "WindowWidth": 0}),
    "window empty": (RAMP, {"WindowCenter": None, "WindowWidth": None}),
    "rescale": (RAMP, {"RescaleSlope": 0.5, "RescaleIntercept": -1000}),
    "rescale that turns": (4095 - RAMP, {"RescaleSlope": -1, "RescaleIntercept": 4095}),
    "rescale and window": (
        RAMP,
        {"RescaleSlope": 2, "RescaleIntercept": 10, "WindowCenter": 4105, "WindowWidth": 8191},
    ),
    "rescale empty": (RAMP, {"RescaleSlope": None, "RescaleIntercept": None}),
    "slope without an intercept": (RAMP, {"RescaleSlope": 3}),
    "VOI LUT of 12 bits": (RAMP, {"VOILUTSequence": table_of(IDENTITY, 12)}),
    "VOI LUT of 16 bits, 12 used": (RAMP, {"VOILUTSequence": table_of(IDENTITY, 16)}),
    "VOI LUT of 16 bits, all used": (RAMP, {"VOILUTSequence": table_of(IDENTITY * 16 + 8, 16)}),
    "VOI LUT of 8 bits": (RAMP, {"VOILUTSequence": table_of(IDENTITY // 16, 8)}),
    "VOI LUT after a rescale": (
        RAMP,
        {"VOILUTSequence": table_of(IDENTITY), "RescaleSlope": 1, "RescaleIntercept": 0},
    ),
    "VOI LUT empty, with a window": (
        RAMP,
        {"VOILUTSequence": [pydicom.Dataset()], "WindowCenter": 2048, "WindowWidth": 4096},
    ),
    "VOI LUT and modality LUT without a table, with a window": (
        RAMP,
        {
            "VOILUTSequence": no_table(),
            "ModalityLUTSequence": no_table(),
            "WindowCenter": 2048,
            "WindowWidth": 4096,
        },
    ),
    "modality LUT": (4095 - RAMP, {"ModalityLUTSequence": table_of(IDENTITY[::-1])}),
    "modality LUT of 12 bits": (RAMP, {"ModalityLUTSequence": table_of(IDENTITY, 12)}),
    "modality LUT empty": (RAMP, {"ModalityLUTSequence": []}),
}
WILD = np.where(IDENTITY == 7, 65535, IDENTITY)
SPOILT = {
    "hot entry of a VOI LUT": (RAMP, {"VOILUTSequence": table_of(WILD)}, 7),
    "hot entry of a modality LUT": (RAMP, {"ModalityLUTSequence": table_of(WILD)}, 7),
    "hot pixels": (with_value(65535), {}, 65535),
    "hot pixels, signed": (with_value(32767).astype(np.int16), {}, 32767),
    "cold pixels, signed": (with_value(40000).astype(np.int16), {}, 40000 - 2**16),
    "padding": (with_value(65535, 0.3), {"PixelPaddingValue": 65535}, 65535),
    "padding and a window": (
        with_value(65535, 0.3),
        {"PixelPaddingValue": 65535, "WindowCenter": 2048, "WindowWidth": 4096},
        65535,
    ),
    "padding of the other sign": (
        with_value(40000, 0.3).astype(np.int16),
        {"add": pydicom.DataElement(0x00280120, "US", 40000)},
        40000 - 2**16,
    ),
    "padding of MONOCHROME1": (
        with_value(65535, 0.3),
        {"PixelPaddingValue": 65535, "PhotometricInterpretation": "MONOCHROME1"},
        65535,
    ),
    "a range of padding": (
        np.where(with_value(65535, 0.3) == 65535, 60000 + RAMP, RAMP).astype(np.uint16),
        {"PixelPaddingValue": 60000, "PixelPaddingRangeLimit": 65535},
        None,
    ),
}


def stored(path, **fields):
    image, header = pixels.read_square(pixels.Job(str(path), Stored(image_size=SIDE, **fields)))
    assert image is not None, header["reason"]
    return image


def dicom(write_dicom, path, values, elements):
    """Writes a file; colour has its channels last, `add` is an element of another type."""
    plain = {name: value for name, value in elements.items() if name != "add"}
    write_dicom(path, np.ascontiguousarray(values).reshape(SIDE, -1), Columns=SIDE, **plain)
    if "add" in elements:
        dataset = pydicom.dcmread(path)
        dataset.add(elements["add"])
        dataset.save_as(path)
    return path


@pytest.mark.parametrize("name", RASTERS)
@pytest.mark.parametrize("wanted", [1, 3])
def test_a_ramp_is_the_same_picture_in_every_raster_and_array(tmp_path, name, wanted):
    (tmp_path / "image").write_bytes(RASTERS[name]())
    image = stored(tmp_path / "image", channels=wanted)
    lossy = 3 if name.startswith("JPEG") else 1
    assert np.abs(image.astype(int) - EIGHT[..., None]).max() <= lossy


@pytest.mark.parametrize("name", DICOMS)
def test_a_ramp_is_the_same_picture_in_every_dicom_file(tmp_path, write_dicom, name):
    path = dicom(write_dicom, tmp_path / "IM000001", *DICOMS[name])
    near = 3 if name in ("10 bits in 16", "VOI LUT of 8 bits") or "noise" in name else 1
    assert np.abs(stored(path)[..., 0].astype(int) - EIGHT).max() <= near


@pytest.mark.parametrize("name", SPOILT)
def test_a_ramp_is_the_same_picture_beside_padding_and_hot_pixels(tmp_path, write_dicom, name):
    values, elements, wild = SPOILT[name]
    path = dicom(write_dicom, tmp_path / "a.dcm", values, elements)
    image = stored(path)[..., 0].astype(int)
    spoilt = values > 59999 if wild is None else values == wild
    expected = 255 - EIGHT.astype(int) if "MONOCHROME1" in name else EIGHT.astype(int)
    assert 0 < spoilt.mean() < 0.4
    assert np.abs(image - expected)[~spoilt].max() <= 1
    assert image[spoilt].max() == (255 if name.startswith("hot") else 0)


def test_half_transparent_white_is_grey_and_said(tmp_path):
    picture = np.concatenate([np.full((SIDE, SIDE, 3), 255, np.uint8), EIGHT[..., None]], -1)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(wide_png(picture.astype(np.uint16) * 257))
    for name in ("a.png", "b.png"):
        job = pixels.Job(str(tmp_path / name), Stored(image_size=SIDE, channels=3))
        image, header = pixels.read_square(job)
        assert np.abs(image.astype(int) - EIGHT[..., None]).max() <= 1
        assert "transparency laid over black" in header["remarks"]


def test_the_version_of_the_rule_is_raised_with_the_pixels(tmp_path, write_dicom):
    """Where the digest changes, raise `greys.RULE` with it: old prepared sets are then refused."""
    digest = hashlib.sha256()
    for values, elements in list(DICOMS.values())[:11]:
        digest.update(stored(dicom(write_dicom, tmp_path / "a", values, elements)).tobytes())
    for name in ("PNG grey 16, 12 bits used", "PNG RGB 16, 12 bits used", "npy int16"):
        (tmp_path / "b").write_bytes(RASTERS[name]())
        digest.update(stored(tmp_path / "b").tobytes())
    for values, elements, _ in SPOILT.values():
        digest.update(stored(dicom(write_dicom, tmp_path / "a", values, elements)).tobytes())
    assert (greys.RULE, digest.hexdigest()[:16]) == (2, "613ed82e0c61c98c")
