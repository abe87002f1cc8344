"""Stand-ins for the sources: drawn images, in exactly the layout that each source publishes.

No patient is behind any of it, and everything that rests on it says PHANTOM.

The planted difficulty gap: findings of `gap_group` (default women) are drawn with
`gap_contrast` (default 0.6) of the strength that they have in everybody else, so a model of
equal skill misses more of them. Nothing else that makes an image hard differs on purpose,
except what the modules that draw them state (`thorax`, `abdomen`).
"""

import dataclasses
import os
import pathlib
from typing import Any

from jaxfair.data import build, store
from jaxfair.data.config import DataConfig
from jaxfair.errors import InputError
from jaxfair.files import read_json, write_json
from jaxfair.phantom import films, rsna, scans
from jaxfair.phantom.config import PhantomConfig
from jaxfair.schema import PHANTOM_MARKER

__all__ = ["PhantomConfig", "is_phantom", "read_marker", "ready", "write_phantom"]

KEPT_IN = "runs/phantoms"


def ready(phantom: PhantomConfig | None, data: DataConfig, *, progress: bool = True) -> DataConfig:
    """Draws what is to be drawn, before the data room is asked, which reads files and nothing else.

    Args:
      phantom: what to draw, or None where real data are read.
      data: its `root` is the folder in which phantoms are kept (None: runs/phantoms), or one
        that holds this very phantom.
      progress: draws a progress bar.

    Returns:
      `data` with the root of the drawn files; unchanged without a phantom.

    Raises:
      InputError: the root holds other images, or nothing is drawn for this source.
    """
    if phantom is None:
        return data
    place = pathlib.Path(data.root or KEPT_IN)
    if not is_phantom(phantom, place, source=data.source):
        if build.fingerprint(place, data) is not None:
            raise InputError(
                f"data.root is {place}, which holds images already; a PHANTOM needs a folder of "
                "its own, leave data.root empty."
            )
        place = place / phantom.folder_name(data.source)
        write_phantom(phantom, place, source=data.source, progress=progress)
    return dataclasses.replace(data, root=str(place))


def write_phantom(
    config: PhantomConfig,
    root: str | os.PathLike[str],
    *,
    source: str = "rsna",
    progress: bool = True,
) -> pathlib.Path:
    """Writes the phantom of a source at `root` unless it is there: images, tables and marker.

    Whole or not at all. Drawn in parallel; the files do not depend on the number of processes.

    Raises:
      InputError: `root` holds something else already, or nothing is drawn for this source.
    """
    root = pathlib.Path(root)
    if is_phantom(config, root, source=source):
        return root
    with store.whole_folder(root) as draft:
        if draft is not None:
            _draw(config, draft, source, progress)
            write_json(draft / PHANTOM_MARKER, config.identity(source))
    if not is_phantom(config, root, source=source):
        raise InputError(
            f"{root} holds other files than this phantom's; name an empty folder for it."
        )
    return root


def read_marker(root: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The identity of the phantom that `root` holds, or None where the files are no phantom."""
    path = pathlib.Path(root) / PHANTOM_MARKER
    return read_json(path) if path.is_file() else None


def is_phantom(
    config: PhantomConfig, root: str | os.PathLike[str], *, source: str = "rsna"
) -> bool:
    """True where `root` holds exactly this phantom, whole."""
    return read_marker(root) == config.identity(source)


def _draw(config: PhantomConfig, folder: pathlib.Path, source: str, progress: bool) -> None:
    if source == "rsna":
        rsna.draw(config, folder, progress=progress)
    elif source == "volumes":
        scans.draw(config, folder, progress=progress)
    else:
        films.draw(config, source, folder, progress=progress)
