"""Stand-ins for the sources: drawn images, in exactly the layout that each source publishes.

No patient is behind any of it, and everything that rests on it says PHANTOM.

The planted difficulty gap: findings of `gap_group` (default women) are drawn with
`gap_contrast` (default 0.6) of the strength that they have in everybody else, so a model of
equal skill misses more of them. Nothing else that makes an image hard differs on purpose,
except what the modules that draw them state (`thorax`, `abdomen`).
"""

import json
import os
import pathlib
from typing import Any

from jaxfair.data import store
from jaxfair.errors import InputError
from jaxfair.files import write_json
from jaxfair.phantom import films, rsna, scans
from jaxfair.phantom.config import PhantomConfig

__all__ = ["MARKER", "PhantomConfig", "is_phantom", "read_marker", "write_phantom"]

MARKER = "phantom.json"


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
            write_json(draft / MARKER, config.identity(source))
    if not is_phantom(config, root, source=source):
        raise InputError(
            f"{root} holds other files than this phantom's; name an empty folder for it."
        )
    return root


def read_marker(root: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The identity of the phantom that `root` holds, or None where the files are no phantom."""
    path = pathlib.Path(root) / MARKER
    return json.loads(path.read_text()) if path.is_file() else None


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
