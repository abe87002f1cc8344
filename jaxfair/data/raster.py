"""One PNG or JPEG file to the integers that it holds, transparency over black."""

import os

import numpy as np
import png
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxfair.data import sizes
from jaxfair.data.decode import noted, short
from jaxfair.errors import InputError

__all__ = ["read_raster"]

TRANSPARENT = "transparency laid over black"


def read_raster(path: str | os.PathLike[str]) -> tuple[np.ndarray, str, str, list[str]]:
    """Reads a picture in the bits that it was saved with, turned as its EXIF says.

    Returns:
      integers or floats, (h, w) or (h, w, 3); mode and format by Pillow's names; and remarks.

    Raises:
      InputError: it is no PNG or JPEG file, is cut off, or is too large for Pillow.
    """
    try:
        with noted() as remarks, Image.open(path, formats=("PNG", "JPEG")) as file:
            sizes.check(path, (file.height, file.width, len(file.getbands())))
            kind, mode = str(file.format), file.mode
            pixels, transparent = _wide(path) if _is_wide(file) else _pixels(file)
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is no PNG or JPEG file; replace it.") from error
    except Exception as error:  # decoders raise what they like
        raise InputError(f"{path} cannot be decoded ({short(error)}); replace it.") from error
    return pixels, mode, kind, sorted([*remarks, *[TRANSPARENT] * transparent])


def _pixels(file: Image.Image) -> tuple[np.ndarray, bool]:
    transparent = file.has_transparency_data
    image: Image.Image = ImageOps.exif_transpose(file)
    if transparent:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    plain = image.mode in ("L", "RGB") or image.mode.startswith(("I", "F"))
    return np.asarray(image if plain else image.convert("RGB")), transparent


def _is_wide(file: Image.Image) -> bool:
    """True for colour or transparency of 16 bits, of which Pillow keeps the high byte alone."""
    tiles = [str(tile.args) for tile in getattr(file, "tile", ())]
    wide = file.format == "PNG" and any("16" in args for args in tiles)
    return wide and (file.mode in ("RGB", "RGBA", "LA") or "transparency" in file.info)


def _wide(path: str | os.PathLike[str]) -> tuple[np.ndarray, bool]:
    with open(path, "rb") as file:
        width, _, rows, about = png.Reader(file).asDirect()
        pixels = np.vstack([np.asarray(row, np.uint16) for row in rows])
    pixels = pixels.reshape(len(pixels), width, about["planes"])
    if about["alpha"]:
        whole = np.float64(2 ** about["bitdepth"] - 1)
        pixels = np.rint(pixels[..., :-1] * (pixels[..., -1:] / whole)).astype(np.uint16)
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels, about["alpha"]
